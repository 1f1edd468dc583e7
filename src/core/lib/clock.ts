// Time is injected wherever it matters, so that a test of a 30 s grace takes no 30 s.

/** Stops a timer; harmless when it already fired. */
export type Cancel = () => void;

export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Calls `run` once after `ms` milliseconds, however many. A timer keeps the process alive: whoever stops must cancel it. */
  after(ms: number, run: () => void): Cancel;
  /**
   * Resolves after `ms` milliseconds.
   * @throws the signal's reason, at once, when it aborts
   */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** `sleep` on top of any `after`: one implementation for the real and the fake clock. */
function sleepWith(after: Clock["after"]): Clock["sleep"] {
  return (ms, signal) =>
    new Promise<void>((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const onAbort = (): void => {
        cancel();
        reject(signal?.reason);
      };
      const cancel = after(ms, () => {
        // a long-lived signal must not collect one listener per sleep
        signal?.removeEventListener("abort", onAbort);
        resolve();
      });
      signal?.addEventListener("abort", onAbort, { once: true });
    });
}

/** setTimeout fires at once for more. */
const LONGEST_MS = 2 ** 31 - 1;

const realAfter: Clock["after"] = (ms, run) => {
  if (ms > LONGEST_MS) return inPieces(ms, run);
  const timer = setTimeout(run, ms);
  return () => clearTimeout(timer);
};

const inPieces: Clock["after"] = (ms, run) => {
  let cancel = realAfter(LONGEST_MS, () => {
    cancel = realAfter(ms - LONGEST_MS, run);
  });
  return () => cancel();
};

export const systemClock: Clock = {
  now: () => Date.now(),
  after: realAfter,
  sleep: sleepWith(realAfter),
};

const epochAtStart = Date.now() - performance.now();

/**
 * The time of day when the process started, and what has passed since: nobody who sets the machine's clock moves it. For
 * whoever compares times; with `systemClock` an hour set back is an hour in which nothing is due.
 */
export const steadyClock: Clock = {
  ...systemClock,
  now: () => Math.floor(epochAtStart + performance.now()),
};

/** A clock that only moves when told. */
export interface FakeClock extends Clock {
  /** Moves time forward, running every timer that comes due in order, and lets promises settle in between. */
  advance(ms: number): Promise<void>;
  /** How many timers wait: a test of leaks reads it. */
  readonly pending: number;
}

/** @param start the first `now()`. @default 1_700_000_000_000 */
export function fakeClock(start = 1_700_000_000_000): FakeClock {
  let now = start;
  let timers: { at: number; run: () => void }[] = [];
  const after: Clock["after"] = (ms, run) => {
    const timer = { at: now + Math.max(0, ms), run };
    timers.push(timer);
    return () => {
      timers = timers.filter((other) => other !== timer);
    };
  };
  // a macrotask turn, so that chains of promises of any length settle before the next timer fires
  const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  return {
    now: () => now,
    after,
    sleep: sleepWith(after),
    get pending() {
      return timers.length;
    },
    async advance(ms) {
      const end = now + ms;
      await settle();
      for (;;) {
        const due = timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
        if (due === undefined) break;
        timers = timers.filter((timer) => timer !== due);
        now = Math.max(now, due.at);
        due.run();
        await settle();
      }
      now = end;
    },
  };
}
