// Keeping HAProxy at the newest state: one apply at a time, always of what is wanted now, tried again until it holds.
import { fullJitter } from "../core/lib/backoff.ts";
import type { Cancel, Clock } from "../core/lib/clock.ts";
import { describeError, Fault } from "../core/lib/errors.ts";
import type { Logger } from "../core/lib/logger.ts";
import type { Position } from "../core/model/position.ts";
import type { Applied, Desired, Proxy } from "../core/haproxy/proxy.ts";

const RETRY = { baseMs: 500, capMs: 5_000 };

/** What should run now, and which state of the registry that is. */
export type Target = { readonly desired: Desired; readonly position: Position };

/** One apply that HAProxy was read back after. */
export type Application = {
  readonly applied: Applied;
  readonly position: Position;
  /** Somebody waits for one of the changes in it. */
  readonly urgent: boolean;
  /** From the arrival of the oldest change in it to the end of the read-back. */
  readonly tookMs: number;
};

export type ApplierOptions = {
  readonly proxy: Pick<Proxy, "start" | "apply">;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random?: () => number;
  /** Asked when an apply begins: what came while the last one ran is in it, and nothing in between is applied for its own sake. */
  readonly target: () => Target;
  readonly onApplied: (application: Application) => void;
  readonly onFailure: (failure: Fault) => void;
};

export interface Applier {
  /** Starts HAProxy with what is wanted now. @throws what `Proxy.start` throws */
  start(): Promise<void>;
  /** What is wanted changed. Before `start` it is only noted. */
  request(urgent: boolean): void;
  /** Why HAProxy does not run what is wanted, or undefined. */
  readonly failure: Fault | undefined;
  /** Begins nothing new; resolves when what runs has ended. */
  stop(): Promise<void>;
}

/** Changes that no apply has begun with: since when they wait, and whether somebody waits for them. */
type Pending = { readonly since: number; readonly urgent: boolean };

export function createApplier(options: ApplierOptions): Applier {
  const { proxy, clock, logger, random = Math.random, target, onApplied, onFailure } = options;
  let pending: Pending | undefined;
  let running: Promise<void> | undefined;
  let started = false;
  let stopped = false;
  let failure: Fault | undefined;
  let failures = 0;
  let retry: Cancel | undefined;

  const apply = async (taken: Pending, how: Proxy["apply"]): Promise<void> => {
    const { desired, position } = target();
    const applied = await how(desired);
    failure = undefined;
    failures = 0;
    onApplied({ applied, position, urgent: taken.urgent, tookMs: clock.now() - taken.since });
  };

  const run = async (): Promise<void> => {
    for (let taken = pending; taken !== undefined; taken = pending) {
      pending = undefined;
      try {
        await apply(taken, (desired) => proxy.apply(desired));
      } catch (error) {
        fail(taken, error);
        return;
      }
    }
  };

  const fail = (taken: Pending, error: unknown): void => {
    failure =
      error instanceof Fault ? error : new Fault({ code: "apply_failed", message: describeError(error), cause: error });
    logger.error(
      { code: failure.code, hint: failure.hint },
      `HAProxy does not run the newest state: ${failure.message}`,
    );
    onFailure(failure);
    note(taken.urgent, taken.since);
    retry?.();
    retry = stopped ? undefined : clock.after(fullJitter(failures, { ...RETRY, random }), go);
    failures += 1;
  };

  const note = (urgent: boolean, since: number): void => {
    pending = { since: Math.min(since, pending?.since ?? since), urgent: urgent || pending?.urgent === true };
  };

  const go = (): void => {
    retry?.();
    retry = undefined;
    if (!started || stopped || running !== undefined || pending === undefined) return;
    running = run().finally(() => {
      running = undefined;
      // a request between the loop's last look and here
      if (retry === undefined) go();
    });
  };

  return {
    async start() {
      const taken = pending ?? { since: clock.now(), urgent: false };
      pending = undefined;
      await apply(taken, (desired) => proxy.start(desired));
      started = true;
      go();
    },
    request(urgent) {
      note(urgent, clock.now());
      go();
    },
    get failure() {
      return failure;
    },
    async stop() {
      stopped = true;
      pending = undefined;
      retry?.();
      await running;
    },
  };
}
