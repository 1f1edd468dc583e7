// From single checks to a verdict: rise and fall, damped towards healthy only. Pure.

/** Falls within this time, in ms, make an instance a flapping one. */
const FLAP_WINDOW_MS = 300_000;
/** A flapping instance needs at most this many times `rise` passes. */
const MAX_DAMPING = 16;

export type Health = {
  /** null: not checked yet. */
  readonly healthy: boolean | null;
  /** Checks in a row with the same result, and that result. */
  readonly streak: { readonly passed: boolean; readonly count: number };
  /** False until the first pass: until then one pass is enough. */
  readonly proven: boolean;
  /** When it became unhealthy after having been healthy, in ms since the epoch; the last FLAP_WINDOW_MS only. */
  readonly falls: readonly number[];
};

/** An instance nobody has checked. */
export const unchecked: Health = { healthy: null, streak: { passed: true, count: 0 }, proven: false, falls: [] };

/**
 * The health after one more check. A new instance believes its first check, whatever it says, and its first pass; later `fall`
 * failures in a row make it unhealthy, and `rise` passes healthy again. Each fall within 5 min doubles the passes that are
 * needed (up to 16 times): an instance that flaps comes back slowly, but it leaves as fast as any other.
 */
export function observe(
  health: Health,
  passed: boolean,
  limits: { readonly rise: number; readonly fall: number },
  now: number,
): Health {
  const count = health.streak.passed === passed ? health.streak.count + 1 : 1;
  const falls = health.falls.filter((at) => now - at < FLAP_WINDOW_MS);
  const next: Health = { ...health, streak: { passed, count }, falls, proven: health.proven || passed };
  if (!health.proven) return { ...next, healthy: passed };
  if (passed)
    return health.healthy === true || count < passesNeeded(falls, limits.rise) ? next : { ...next, healthy: true };
  if (health.healthy !== true || count < limits.fall) return next;
  return { ...next, healthy: false, falls: [...falls, now] };
}

function passesNeeded(falls: readonly number[], rise: number): number {
  return rise * Math.min(MAX_DAMPING, 2 ** Math.max(0, falls.length - 1));
}
