import { childTraceparent, contextOf, type InboundContext } from "../client/context.ts";

/** The pattern that stands in logs and metrics for requests that no declared route took. */
export const NO_ROUTE = "(none)";

/** The path of an absolute URL, without making a URL of it. */
export function pathOf(url: string): string {
  const start = url.indexOf("/", url.indexOf("://") + 3);
  if (start < 0) return "/";
  const query = url.indexOf("?", start);
  return query < 0 ? url.slice(start) : url.slice(start, query);
}

/**
 * One request on its way through the service: who it is, how long it may take, which route took it. It is also the context
 * that calls of the smart client inside it inherit.
 */
export class Exchange implements InboundContext {
  readonly request: Request;
  readonly requestId: string;
  readonly traceparent: string;
  readonly tracestate: string | undefined;
  /** Milliseconds since the epoch. */
  readonly arrivedAt: number;
  /** On the scale of `performance.now()`, for durations. */
  readonly startedAt = performance.now();
  route = NO_ROUTE;
  readonly #callerDeadline: number;
  #limitMs: number;
  #controller: AbortController | undefined;
  #signal: AbortSignal | undefined;

  /**
   * @param now ms since the epoch
   * @param limitMs the service's own timeout
   */
  constructor(request: Request, now: number, limitMs: number) {
    const inbound = contextOf(request.headers, now);
    this.request = request;
    this.arrivedAt = now;
    this.requestId = inbound.requestId ?? crypto.randomUUID();
    // begun here when the caller has none, so that the log and the calls from here carry the same trace
    this.traceparent = inbound.traceparent ?? childTraceparent(undefined);
    this.tracestate = inbound.tracestate;
    this.#callerDeadline = inbound.deadlineAt ?? Number.POSITIVE_INFINITY;
    this.#limitMs = limitMs;
  }

  /** Replaces the service's own timeout for this request. The caller's stays: nobody waits longer than he does. */
  limit(timeoutMs: number): void {
    this.#limitMs = timeoutMs;
  }

  /** Milliseconds since the epoch. */
  get deadlineAt(): number {
    return Math.min(this.arrivedAt + this.#limitMs, this.#callerDeadline);
  }

  /** Aborts when the time is over or the caller has gone. Made on demand: most handlers never ask. */
  get signal(): AbortSignal {
    if (this.#signal === undefined) {
      this.#controller = new AbortController();
      this.#signal = AbortSignal.any([this.request.signal, this.#controller.signal]);
    }
    return this.#signal;
  }

  /** The time is over: whoever listens to `signal` stops. */
  abort(reason: unknown): void {
    this.#controller?.abort(reason);
  }
}
