/** How long a service's answers took lately. */
export interface Latency {
  add(ms: number): void;
  readonly count: number;
  /** The `share` quantile (0.95) of the last answers, in ms; undefined when there were none. */
  quantile(share: number): number | undefined;
}

/** @param size how many answers it remembers */
export function latency(size = 256): Latency {
  const samples = new Float64Array(size);
  let added = 0;
  return {
    add(ms) {
      samples[added % size] = ms;
      added += 1;
    },
    get count() {
      return Math.min(added, size);
    },
    quantile(share) {
      const count = Math.min(added, size);
      if (count === 0) return undefined;
      const sorted = samples.slice(0, count).sort();
      // nearest rank
      return sorted[Math.min(count - 1, Math.max(0, Math.ceil(share * count) - 1))];
    },
  };
}
