// Deadlines of requests under way, on one timer: setting and clearing a timer for every request can be measured, and nearly
// none of them ever rings.
import type { Cancel, Clock } from "../lib/clock.ts";

export interface Alarm {
  /** Ms since the epoch; Infinity for never. */
  readonly at: number;
  ring(): void;
}

export interface Alarms {
  add(alarm: Alarm): void;
  /** Without alarms there is no timer, so that a program can end. */
  remove(alarm: Alarm): void;
}

export function alarms(clock: Clock): Alarms {
  const waiting = new Set<Alarm>();
  let nextAt = Number.POSITIVE_INFINITY;
  let cancel: Cancel | undefined;

  const arm = (at: number, now: number): void => {
    cancel?.();
    nextAt = at;
    cancel = clock.after(Math.max(0, at - now), ring);
  };
  const ring = (): void => {
    cancel = undefined;
    nextAt = Number.POSITIVE_INFINITY;
    const now = clock.now();
    let soonest = Number.POSITIVE_INFINITY;
    for (const alarm of waiting) {
      if (alarm.at <= now) {
        waiting.delete(alarm);
        alarm.ring();
      } else if (alarm.at < soonest) soonest = alarm.at;
    }
    // one that rang may have added another
    if (soonest < nextAt) arm(soonest, now);
  };

  return {
    add(alarm) {
      if (alarm.at === Number.POSITIVE_INFINITY) return;
      waiting.add(alarm);
      // a timer that is set for sooner finds nothing due, and is set again for this one
      if (alarm.at < nextAt) arm(alarm.at, clock.now());
    },
    remove(alarm) {
      waiting.delete(alarm);
      if (waiting.size > 0) return;
      cancel?.();
      cancel = undefined;
      nextAt = Number.POSITIVE_INFINITY;
    },
  };
}
