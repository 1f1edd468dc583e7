// Writes of metadata are read, decide, store a version, make it count. Here they run one at a time, so that only another
// replica can get in between; and then they are repeated.
import { fullJitter } from "../core/lib/backoff.ts";
import { type Clock, systemClock } from "../core/lib/clock.ts";
import { errorCode } from "../core/lib/errors.ts";
import { ProblemFault } from "../core/lib/http.ts";
import { serial } from "../core/lib/serial.ts";

/** How often a write that lost its race to another replica is tried in all. */
const ATTEMPTS = 8;
/** The winner's write reaches this replica through the store, some milliseconds later. */
const BACKOFF = { baseMs: 20, capMs: 400 };

/** Runs one write after the others. `work` may run several times. */
export type MetadataQueue = <T>(work: () => Promise<T>) => Promise<T>;

/** @param clock @default systemClock */
export function metadataQueue(clock: Clock = systemClock): MetadataQueue {
  const queue = serial();
  return (work) => queue.run(() => repeated(work, clock));
}

async function repeated<T>(work: () => Promise<T>, clock: Clock): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      // a ProblemFault is a considered no; a bare conflict is the store's lost race
      const lostRace = !(error instanceof ProblemFault) && errorCode(error) === "conflict";
      if (!lostRace || attempt === ATTEMPTS) throw error;
      await clock.sleep(fullJitter(attempt, BACKOFF));
    }
  }
}
