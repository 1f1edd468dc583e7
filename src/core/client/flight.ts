import type { Alarm, Alarms } from "./alarms.ts";

/** Why a request under way was stopped. */
export type Stop = "attempt_timeout" | "call_timeout" | "aborted" | "hedge_lost";

/**
 * One request under way: the signal that closes its socket, and everything that may pull it. `end` lets go of the alarm
 * and of the caller's signal, which may live for ever and must not collect listeners.
 */
export class Flight implements Alarm {
  /** Why it was stopped; undefined while it flies, and when it ended by itself. */
  stopped: Stop | undefined;
  readonly at: number;
  readonly #alarms: Alarms;
  readonly #onTime: Stop;
  readonly #caller: AbortSignal | undefined;
  readonly #onEnd: () => void;
  readonly #controller = new AbortController();
  readonly #onAbort: (() => void) | undefined;
  #ended = false;

  /**
   * @param at when it must be over, in ms since the epoch; Infinity for never
   * @param onTime what it means when that time comes
   * @param caller the caller's own signal
   * @param onEnd called once, when it is over
   */
  constructor(alarms: Alarms, at: number, onTime: Stop, caller: AbortSignal | undefined, onEnd: () => void) {
    this.at = at;
    this.#alarms = alarms;
    this.#onTime = onTime;
    this.#caller = caller;
    this.#onEnd = onEnd;
    alarms.add(this);
    if (caller === undefined) return;
    this.#onAbort = () => this.stop("aborted");
    caller.addEventListener("abort", this.#onAbort, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  ring(): void {
    this.stop(this.#onTime);
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
    this.#alarms.remove(this);
    if (this.#onAbort !== undefined) this.#caller?.removeEventListener("abort", this.#onAbort);
    this.#onEnd();
  }
}
