// How often HAProxy may be reloaded: every reload leaves an old worker behind until its last client is gone.

const SPACING_MS = 2_000;
/** When old workers pile up. */
const CROWDED_SPACING_MS = 30_000;
const CROWD = 3;

/**
 * How long a reload must wait, in ms: the first none, later ones 2 s after the last, and 30 s while more than three old
 * workers live. @param reloadedAt -Infinity when there was none
 */
export function reloadWaitMs(reloadedAt: number, oldWorkers: number, now: number): number {
  return Math.max(0, reloadedAt + (oldWorkers > CROWD ? CROWDED_SPACING_MS : SPACING_MS) - now);
}
