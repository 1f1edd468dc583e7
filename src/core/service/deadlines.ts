// Ends requests whose time is over. One timer for all of them: a timer per request would cost more than most handlers.
import type { Cancel, Clock } from "../lib/clock.ts";
import type { Exchange } from "./exchange.ts";

/** How late an end may be, in ms. */
const TICK_MS = 25;

export class Deadlines {
  readonly #clock: Clock;
  readonly #waiting = new Map<Exchange, () => void>();
  #timer: Cancel | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Calls `onOver` once when the exchange's time is over, unless `remove` comes first. */
  add(exchange: Exchange, onOver: () => void): void {
    this.#waiting.set(exchange, onOver);
    this.#timer ??= this.#clock.after(TICK_MS, this.#sweep);
  }

  remove(exchange: Exchange): void {
    this.#waiting.delete(exchange);
  }

  stop(): void {
    this.#timer?.();
    this.#timer = undefined;
    this.#waiting.clear();
  }

  readonly #sweep = (): void => {
    this.#timer = undefined;
    const now = this.#clock.now();
    for (const [exchange, onOver] of this.#waiting) {
      if (exchange.deadlineAt > now) continue;
      this.#waiting.delete(exchange);
      onOver();
    }
    if (this.#waiting.size > 0) this.#timer = this.#clock.after(TICK_MS, this.#sweep);
  };
}
