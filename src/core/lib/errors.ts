/** What a smartstack error tells: a stable code, one sentence of what happened, one of what to do, and the cause. */
export type FaultInit = {
  /** Stable, lower_snake_case; programs match on it, never on the message. */
  readonly code: string;
  readonly message: string;
  /** What the reader can do about it, as a full sentence. */
  readonly hint?: string | undefined;
  readonly cause?: unknown;
};

/** The base of every error this project throws on purpose. Anything else that reaches a user is a bug. */
export class Fault extends Error {
  readonly code: string;
  readonly hint: string | undefined;

  constructor(init: FaultInit) {
    super(init.message, init.cause === undefined ? undefined : { cause: init.cause });
    this.name = "Fault";
    this.code = init.code;
    this.hint = init.hint;
  }
}

/** The message of anything that was thrown, with the messages of its causes behind it, ten deep at most. */
export function describeError(error: unknown): string {
  return describeDown(error, 10);
}

// an error can be its own cause
function describeDown(error: unknown, depth: number): string {
  if (!(error instanceof Error)) return String(error);
  const own =
    error instanceof AggregateError && error.message === "" && depth > 0
      ? error.errors.map((one) => describeDown(one, depth - 1)).join("; ")
      : error.message;
  if (error.cause === undefined || depth <= 1) return own;
  const cause = describeDown(error.cause, depth - 1);
  // whoever wrote the message may have put the cause into it already
  return own.includes(cause) ? own : `${own}: ${cause}`;
}

/** The `code` of a thrown value (`ECONNREFUSED`, `not_found`), or undefined. Match on this, never on messages: they change. */
export function errorCode(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}
