import type { Fault } from "./errors.ts";

/** A started program: what its command waits on, and how `dev` and tests end it. */
export interface Running {
  /** Ends it in order; safe to call twice. Resolves when nothing of it is left: no timer, socket or child. */
  stop(): Promise<void>;
  /** Resolves when it is over: undefined after `stop()`, or the reason when it ended by itself. */
  readonly ended: Promise<Fault | undefined>;
}
