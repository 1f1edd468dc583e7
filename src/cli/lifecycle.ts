// How a command that runs a program ends: by a signal, by the program itself, or, when somebody is in a hurry, by a second signal.
import { describeError, Fault } from "../core/lib/errors.ts";
import type { Running } from "../core/lib/running.ts";

export type Hooks<R extends Running> = {
  /** SIGHUP. Without it the signal is ignored: a program does not end because its terminal did. */
  readonly onHangup?: (running: R) => Promise<void> | void;
  /** The second SIGINT or SIGTERM: whatever must not outlive this process. */
  readonly onHurry?: (running: R) => void;
};

/**
 * Starts a program and waits until it is over. SIGINT and SIGTERM stop it, also while it is still starting; the second of them
 * ends the process at once, with 128 + the signal's number.
 * @param start its signal aborts when it should not go on: then it may throw that reason, which is no failure
 * @returns the reason when it ended by itself
 * @throws what starting or stopping threw
 */
export async function runProgram<R extends Running>(
  start: (interrupt: AbortSignal) => Promise<R>,
  hooks: Hooks<R> = {},
): Promise<Fault | undefined> {
  let running: R | undefined;
  const interrupt = new AbortController();
  const failure = Promise.withResolvers<never>();
  const stop = (program: R): void => void program.stop().catch(failure.reject);
  const onStop = (_name: NodeJS.Signals, signal: number): void => {
    if (interrupt.signal.aborted) {
      if (running !== undefined) hooks.onHurry?.(running);
      process.exit(128 + signal);
    }
    interrupt.abort(new Fault({ code: "interrupted", message: "was told to stop while it started" }));
    if (running !== undefined) stop(running);
  };
  let hungUp = false;
  const onHangup = (): void => {
    // while it starts, what it has read already may be what was changed: it reads again once it runs
    hungUp = running === undefined;
    // rereading is an attempt: what it failed with is no reason to end a program that runs
    void (async () => {
      if (running !== undefined) await hooks.onHangup?.(running);
    })().catch((error: unknown) => console.error(`smartstack: SIGHUP: ${describeError(error)}`));
  };
  process.on("SIGINT", onStop);
  process.on("SIGTERM", onStop);
  process.on("SIGHUP", onHangup);
  try {
    running = await start(interrupt.signal);
    if (hungUp) onHangup();
    if (interrupt.signal.aborted) stop(running);
    return await Promise.race([running.ended, failure.promise]);
  } catch (error) {
    if (running === undefined && interrupt.signal.aborted && error === interrupt.signal.reason) return undefined;
    throw error;
  } finally {
    process.off("SIGINT", onStop);
    process.off("SIGTERM", onStop);
    process.off("SIGHUP", onHangup);
  }
}
