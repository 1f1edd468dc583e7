// Keeping HAProxy at the newest state. Every change is handed on at once, since a change at run time must not wait for a
// reload that another one needs; Proxy takes what comes together and tells when each was read back. What fails is tried again.
import { fullJitter } from "../core/lib/backoff.ts";
import type { Cancel, Clock } from "../core/lib/clock.ts";
import { describeError, Fault } from "../core/lib/errors.ts";
import type { Logger } from "../core/lib/logger.ts";
import { comparePositions, type Position } from "../core/model/position.ts";
import type { Applied, Desired, Proxy } from "../core/haproxy/proxy.ts";

const RETRY = { baseMs: 500, capMs: 5_000 };
/** What was refused is tried again so often, in ms: a name may resolve by now, a disk may have room. */
const REFUSED_MS = 30_000;

/** What should run now, and which state of the registry that is. */
type Target = { readonly desired: Desired; readonly position: Position };

/** What HAProxy was read back to run; several changes may share one. */
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
  readonly target: () => Target;
  readonly onApplied: (application: Application) => void;
  readonly onFailure: (failure: Fault) => void;
};

export interface Applier {
  /** Starts HAProxy with what is wanted now. @throws what `Proxy.start` throws */
  start(): Promise<void>;
  /** What is wanted changed. Before `start` it is only noted; changes of one moment are one. */
  request(urgent: boolean): void;
  /** Why HAProxy does not run what is wanted, or undefined. */
  readonly failure: Fault | undefined;
  /** Begins nothing new, and hears nothing more of what is under way. */
  stop(): void;
}

/** Changes that were not handed on yet: since when, and whether somebody waits for them. */
type Pending = { readonly since: number; readonly urgent: boolean };
type Finished = Pending & { readonly applied: Applied; readonly position: Position };

export function createApplier(options: ApplierOptions): Applier {
  const { proxy, clock, logger, random = Math.random, target, onApplied, onFailure } = options;
  let pending: Pending | undefined;
  let scheduled = false;
  let finished: Finished[] = [];
  let started = false;
  let stopped = false;
  let failure: Fault | undefined;
  let failures = 0;
  let retry: Cancel | undefined;
  let refusedAgain: Cancel | undefined;

  const note = ({ since, urgent }: Pending): void => {
    pending = { since: Math.min(since, pending?.since ?? since), urgent: urgent || pending?.urgent === true };
  };

  const schedule = (): void => {
    if (scheduled || !started || stopped) return;
    scheduled = true;
    queueMicrotask(go);
  };

  const go = (): void => {
    scheduled = false;
    retry?.();
    retry = undefined;
    const taken = pending;
    if (taken === undefined || stopped) return;
    pending = undefined;
    const { desired, position } = target();
    proxy.apply(desired).then(
      (applied) => finish({ ...taken, applied, position }),
      (error: unknown) => fail(taken, error),
    );
  };

  /** Proxy answers all that one read-back covers in the same turn: they are told of as one. */
  const finish = (one: Finished): void => {
    finished.push(one);
    if (finished.length === 1) queueMicrotask(tell);
  };

  const tell = (): void => {
    const all = finished;
    finished = [];
    const newest = all.toSorted((a, b) => comparePositions(a.position, b.position)).at(-1);
    if (newest === undefined || stopped) return;
    failure = undefined;
    failures = 0;
    refusedAgain?.();
    refusedAgain = newest.applied.rejected.length === 0 ? undefined : clock.after(REFUSED_MS, () => request(false));
    onApplied({
      applied: newest.applied,
      position: newest.position,
      urgent: all.some(({ urgent }) => urgent),
      tookMs: clock.now() - Math.min(...all.map(({ since }) => since)),
    });
  };

  const fail = (taken: Pending, error: unknown): void => {
    if (stopped) return;
    note(taken);
    // one failure fails all that were under way
    if (retry !== undefined) return;
    failure =
      error instanceof Fault ? error : new Fault({ code: "apply_failed", message: describeError(error), cause: error });
    logger.error(
      { code: failure.code, hint: failure.hint },
      `HAProxy does not run the newest state: ${failure.message}`,
    );
    onFailure(failure);
    retry = clock.after(fullJitter(failures, { ...RETRY, random }), go);
    failures += 1;
  };

  const request = (urgent: boolean): void => {
    note({ since: clock.now(), urgent });
    schedule();
  };

  return {
    async start() {
      const taken = pending ?? { since: clock.now(), urgent: false };
      pending = undefined;
      const { desired, position } = target();
      const applied = await proxy.start(desired);
      if (stopped) return;
      started = true;
      finish({ ...taken, applied, position });
      if (pending !== undefined) schedule();
    },
    request,
    get failure() {
      return failure;
    },
    stop() {
      stopped = true;
      pending = undefined;
      retry?.();
      retry = undefined;
      refusedAgain?.();
      refusedAgain = undefined;
    },
  };
}
