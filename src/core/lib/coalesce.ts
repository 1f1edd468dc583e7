import type { Cancel, Clock } from "./clock.ts";

/** Runs `run` now when it did not run for `intervalMs`, else once when the interval ends, however often it was called. */
export interface Coalesced {
  /** Asks for a run. */
  request(): void;
  /** Drops a pending run. */
  stop(): void;
}

/**
 * First at once, later ones together: the shape of watch deltas (20 ms), acks (1 s) and HAProxy reloads (2 s).
 * @param intervalMs least distance between two runs, or a function of it, asked when a run is due to be planned
 */
export function coalesce(clock: Clock, intervalMs: number | (() => number), run: () => void): Coalesced {
  let last = Number.NEGATIVE_INFINITY;
  let pending: Cancel | undefined;
  const fire = (): void => {
    pending = undefined;
    last = clock.now();
    run();
  };
  return {
    request() {
      if (pending !== undefined) return;
      const interval = typeof intervalMs === "number" ? intervalMs : intervalMs();
      // at most one interval, also when the clock was set back meanwhile
      const wait = Math.min(interval, last + interval - clock.now());
      if (wait <= 0) fire();
      else pending = clock.after(wait, fire);
    },
    stop() {
      pending?.();
      pending = undefined;
    },
  };
}
