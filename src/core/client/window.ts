// Two counts over the last seconds: the retry budget (requests, retries) and the circuit breaker (successes, failures)
// both forget what is long past.

/** Two running counts of the recent past. */
export interface RollingPair {
  add(now: number, first: number, second: number): void;
  /** The counts of the last `lengthMs`, to the nearest slot. */
  first(now: number): number;
  second(now: number): number;
  clear(): void;
}

/**
 * @param lengthMs how far back it remembers
 * @param slots its resolution: a count is forgotten between `lengthMs` and `lengthMs / slots` more after it came
 */
export function rollingPair(lengthMs: number, slots = 10): RollingPair {
  const slotMs = lengthMs / slots;
  const firsts = new Float64Array(slots + 1);
  const seconds = new Float64Array(slots + 1);
  let head = Number.NEGATIVE_INFINITY;
  let first = 0;
  let second = 0;

  const clear = (): void => {
    firsts.fill(0);
    seconds.fill(0);
    first = 0;
    second = 0;
  };
  /** Moves to the slot of `now`, forgetting the slots that fell out. Time that goes back stays in the newest slot. */
  const move = (now: number): number => {
    const slot = Math.floor(now / slotMs);
    if (slot - head > slots) {
      clear();
      head = slot;
    }
    while (head < slot) {
      head += 1;
      const index = head % (slots + 1);
      first -= firsts[index] ?? 0;
      second -= seconds[index] ?? 0;
      firsts[index] = 0;
      seconds[index] = 0;
    }
    return head % (slots + 1);
  };

  return {
    add(now, addFirst, addSecond) {
      const index = move(now);
      firsts[index] = (firsts[index] ?? 0) + addFirst;
      seconds[index] = (seconds[index] ?? 0) + addSecond;
      first += addFirst;
      second += addSecond;
    },
    first(now) {
      move(now);
      return first;
    },
    second(now) {
      move(now);
      return second;
    },
    clear,
  };
}
