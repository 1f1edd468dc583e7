// The door of a service under overload: so many requests inside, a short queue before it, and a quick no for the rest.
// Work that nobody can wait for any more is the most expensive work there is.
import type { Cancel, Clock } from "../lib/clock.ts";

export type GateOptions = {
  /** Requests inside at the same time. */
  readonly maxInFlight: number;
  /** Requests that wait outside. @default maxInFlight / 4, at least 1 */
  readonly maxQueued?: number;
  /** The longest wait outside, in ms. @default 250 */
  readonly queueMs?: number;
};

type Waiting = { readonly admit: (admitted: boolean) => void; readonly cancel: Cancel };

export class Gate {
  readonly #clock: Clock;
  readonly #maxInFlight: number;
  readonly #maxQueued: number;
  readonly #queueMs: number;
  #inside = 0;
  #queue: Waiting[] = [];

  constructor(clock: Clock, options: GateOptions) {
    this.#clock = clock;
    this.#maxInFlight = options.maxInFlight;
    this.#maxQueued = options.maxQueued ?? Math.max(1, Math.floor(options.maxInFlight / 4));
    this.#queueMs = options.queueMs ?? 250;
  }

  get inFlight(): number {
    return this.#inside;
  }

  get queued(): number {
    return this.#queue.length;
  }

  /** Goes in when there is room. Whoever got in calls `leave` once. */
  tryEnter(): boolean {
    if (this.#inside >= this.#maxInFlight) return false;
    this.#inside += 1;
    return true;
  }

  /** Waits for room; false when the queue is full or the wait too long. @param patienceMs the caller's own limit */
  async enter(patienceMs = Number.POSITIVE_INFINITY): Promise<boolean> {
    if (this.tryEnter()) return true;
    if (this.#queue.length >= this.#maxQueued) return false;
    return new Promise<boolean>((resolve) => {
      const waiting: Waiting = {
        admit: resolve,
        cancel: this.#clock.after(Math.min(this.#queueMs, patienceMs), () => {
          this.#queue = this.#queue.filter((other) => other !== waiting);
          resolve(false);
        }),
      };
      this.#queue.push(waiting);
    });
  }

  leave(): void {
    const next = this.#queue.shift();
    if (next === undefined) {
      this.#inside -= 1;
      return;
    }
    // the place passes to the next one: `inside` stays
    next.cancel();
    next.admit(true);
  }
}
