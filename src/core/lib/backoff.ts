/** How long to wait between attempts. */
export type BackoffOptions = {
  /** Upper bound of the first wait, in ms. */
  readonly baseMs: number;
  /** No wait is longer than this, in ms. */
  readonly capMs: number;
  /** Returns a number in [0, 1). @default Math.random */
  readonly random?: () => number;
};

/**
 * The wait before attempt `attempt + 1`, in ms: "full jitter", uniform in [0, min(cap, base · 2^attempt)).
 * Source: AWS Architecture Blog, "Exponential Backoff And Jitter" (2015); of its variants the one with the least
 * total work for a crowd that failed together.
 * @param attempt 0 for the wait after the first failure
 */
export function fullJitter(attempt: number, { baseMs, capMs, random = Math.random }: BackoffOptions): number {
  return random() * Math.min(capMs, baseMs * 2 ** Math.min(attempt, 30));
}
