import type { Alarm, Alarms } from "./alarms.ts";

/** Why a request under way was stopped. */
export type Stop = "attempt_timeout" | "call_timeout" | "aborted" | "hedge_lost";

export type FlightInit = {
  readonly alarms: Alarms;
  /** When it must be over, in ms since the epoch; Infinity for never. */
  readonly at: number;
  /** What it means when that time comes. */
  readonly onTime: "attempt_timeout" | "call_timeout";
  /** The caller's own signal. */
  readonly signal: AbortSignal | undefined;
  /** Called once, when it is over. */
  readonly onEnd: () => void;
};

/**
 * One request under way: the signal that closes its socket, and everything that may pull it. `end` lets go of the alarm
 * and of the caller's signal, which may live for ever and must not collect listeners.
 */
export class Flight implements Alarm {
  /** Why it was stopped; undefined while it flies, and when it ended by itself. */
  stopped: Stop | undefined;
  readonly at: number;
  readonly #init: FlightInit;
  readonly #controller = new AbortController();
  readonly #onAbort: (() => void) | undefined;
  #ended = false;

  constructor(init: FlightInit) {
    this.#init = init;
    this.at = init.at;
    init.alarms.add(this);
    if (init.signal === undefined) return;
    this.#onAbort = () => this.stop("aborted");
    init.signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  ring(): void {
    this.stop(this.#init.onTime);
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
    this.#init.alarms.remove(this);
    if (this.#onAbort !== undefined) this.#init.signal?.removeEventListener("abort", this.#onAbort);
    this.#init.onEnd();
  }
}
