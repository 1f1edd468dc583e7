import type { Cancel, Clock } from "../lib/clock.ts";

/** Why a request under way was stopped. */
export type Stop = "attempt_timeout" | "call_timeout" | "aborted" | "hedge_lost";

export type FlightInit = {
  readonly clock: Clock;
  /** Infinity for none. */
  readonly limitMs: number;
  /** What it means when that time is over. */
  readonly onLimit: "attempt_timeout" | "call_timeout";
  /** The caller's own signal. */
  readonly signal: AbortSignal | undefined;
  /** Called once, when it is over. */
  readonly onEnd: () => void;
};

/**
 * One request under way: the signal that closes its socket, and everything that may pull it. `end` lets go of the timer
 * and of the caller's signal, which may live for ever and must not collect listeners.
 */
export class Flight {
  /** Why it was stopped; undefined while it flies, and when it ended by itself. */
  stopped: Stop | undefined;
  readonly #controller = new AbortController();
  readonly #caller: AbortSignal | undefined;
  readonly #onEnd: () => void;
  readonly #onAbort: (() => void) | undefined;
  #cancelTimer: Cancel | undefined;
  #ended = false;

  constructor({ clock, limitMs, onLimit, signal, onEnd }: FlightInit) {
    this.#onEnd = onEnd;
    if (limitMs !== Number.POSITIVE_INFINITY) this.#cancelTimer = clock.after(limitMs, () => this.stop(onLimit));
    if (signal === undefined) return;
    this.#caller = signal;
    this.#onAbort = () => this.stop("aborted");
    signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Closes the socket. Does nothing when it is over. */
  stop(why: Stop): void {
    if (this.#ended) return;
    this.stopped = why;
    this.end();
    this.#controller.abort(new DOMException(`stopped: ${why}`, "AbortError"));
  }

  /** It is over, one way or the other. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    if (this.#onAbort !== undefined) this.#caller?.removeEventListener("abort", this.#onAbort);
    this.#onEnd();
  }
}
