// Visiting a changing set of things again and again, a bounded number at once: checks of own instances, probes of held ones.
import type { Cancel, Clock } from "../core/lib/clock.ts";
import { describeError } from "../core/lib/errors.ts";
import type { Logger } from "../core/lib/logger.ts";

export type RoundsOptions = {
  readonly clock: Clock;
  readonly logger: Logger;
  /** At most so many visits at once. @default 32 */
  readonly limit?: number;
  /** The wait before the first visit, in ms. */
  readonly firstMs: (key: string) => number;
  /** One visit. @returns the wait before the next one, in ms; undefined: no further visit */
  readonly visit: (key: string) => Promise<number | undefined>;
};

export interface Rounds {
  /** Visits exactly these from now on: new ones begin, others end. */
  keep(keys: Iterable<string>): void;
  /** Visits one of them now, instead of when it was due, and resolves after it. */
  now(key: string): Promise<void>;
  /** Ends all visits; one under way finishes without a next. */
  stop(): void;
}

type Visited = { cancel: Cancel; running: Promise<void> | undefined };

export function rounds({ clock, logger, limit = 32, firstMs, visit }: RoundsOptions): Rounds {
  const visited = new Map<string, Visited>();
  const waiting: (() => void)[] = [];
  let busy = 0;

  const enter = async (): Promise<void> => {
    if (busy >= limit) await new Promise<void>((resolve) => waiting.push(resolve));
    else busy += 1;
  };
  // the place goes to the next in line, or is free
  const leave = (): void => {
    const next = waiting.shift();
    if (next === undefined) busy -= 1;
    else next();
  };

  const goOnce = async (key: string, entry: Visited): Promise<void> => {
    await enter();
    try {
      if (visited.get(key) !== entry) return;
      const wait = await visit(key);
      if (wait !== undefined && visited.get(key) === entry) plan(key, entry, wait);
    } catch (error) {
      // a visit that throws is our bug; it must not end the rounds of this key
      logger.error({ key }, `a check failed in an unexpected way: ${describeError(error)}`);
      if (visited.get(key) === entry) plan(key, entry, 1_000);
    } finally {
      leave();
    }
  };

  const go = (key: string, entry: Visited): Promise<void> => {
    entry.cancel();
    entry.running ??= goOnce(key, entry).finally(() => {
      entry.running = undefined;
    });
    return entry.running;
  };

  const plan = (key: string, entry: Visited, ms: number): void => {
    entry.cancel = clock.after(ms, () => void go(key, entry));
  };

  return {
    keep(keys) {
      const wanted = new Set(keys);
      for (const [key, entry] of visited) {
        if (wanted.has(key)) continue;
        entry.cancel();
        visited.delete(key);
      }
      for (const key of wanted) {
        if (visited.has(key)) continue;
        const entry: Visited = { cancel: () => undefined, running: undefined };
        visited.set(key, entry);
        plan(key, entry, firstMs(key));
      }
    },
    async now(key) {
      const entry = visited.get(key);
      if (entry !== undefined) await go(key, entry);
    },
    stop() {
      for (const entry of visited.values()) entry.cancel();
      visited.clear();
    },
  };
}
