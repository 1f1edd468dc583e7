import { ZodError } from "zod";
import { errorCode } from "../core/lib/errors.ts";

/** What the exit status of every command means; scripts rely on it. */
export const EXIT = { done: 0, failed: 1, usage: 2, unreachable: 3, timedOut: 4 } as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

const BY_ERROR_CODE: Readonly<Record<string, ExitCode>> = {
  usage: EXIT.usage,
  config: EXIT.usage,
  unreachable: EXIT.unreachable,
  timed_out: EXIT.timedOut,
  not_applied: EXIT.timedOut,
};

/** The exit status for whatever a command threw. */
export function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof ZodError) return EXIT.usage;
  return BY_ERROR_CODE[errorCode(error) ?? ""] ?? EXIT.failed;
}
