import { childTraceparent, contextOf, type InboundContext } from "../client/context.ts";

/** What is used of Bun's server. */
export type ServerLike = { timeout(request: Request, seconds: number): void };

/** The pattern that stands in logs and metrics for requests that no declared route took. */
const NO_ROUTE = "(none)";

/** The path of an absolute URL, without making a URL of it. */
export function pathOf(url: string): string {
  const start = url.indexOf("/", url.indexOf("://") + 3);
  if (start < 0) return "/";
  const query = url.indexOf("?", start);
  return query < 0 ? url.slice(start) : url.slice(start, query);
}

// unique in a realm: random per process, then a count. A random id for each request would cost more than the routing
const PROCESS = crypto.randomUUID().slice(0, 18);
let count = 0;

/**
 * One request on its way through the service: who it is, how long it may take, which route took it. It is also the context
 * that calls of the smart client inside it inherit. Its headers are read when somebody first asks: Bun makes them on demand,
 * and a handler that answers at once, without a log, never needs them. hono's handlers have it as `c.env`.
 */
export class Exchange implements InboundContext {
  readonly request: Request;
  /** Bun's server, under the name that hono's helpers for Bun look for. */
  readonly server: ServerLike | undefined;
  /** Without the query. */
  readonly path: string;
  /** Milliseconds since the epoch. */
  readonly arrivedAt: number;
  /** On the scale of `performance.now()`, for durations. */
  readonly startedAt = performance.now();
  route = NO_ROUTE;
  #limitMs: number;
  #inbound: InboundContext | undefined;
  #requestId: string | undefined;
  #traceparent: string | undefined;
  #controller: AbortController | undefined;
  #signal: AbortSignal | undefined;

  /**
   * @param now ms since the epoch
   * @param limitMs the service's own timeout
   */
  constructor(request: Request, path: string, server: ServerLike | undefined, now: number, limitMs: number) {
    this.request = request;
    this.path = path;
    this.server = server;
    this.arrivedAt = now;
    this.#limitMs = limitMs;
  }

  get #context(): InboundContext {
    return (this.#inbound ??= contextOf(this.request.headers, this.arrivedAt));
  }

  /** The caller's, or one of our own. */
  get requestId(): string {
    return (this.#requestId ??= this.#context.requestId ?? `${PROCESS}-${(count += 1).toString(36)}`);
  }

  /** The caller's; begun here when he has none and somebody asks, so that the log and the calls from here share a trace. */
  get traceparent(): string {
    return (this.#traceparent ??= this.#context.traceparent ?? childTraceparent(undefined));
  }

  get tracestate(): string | undefined {
    return this.#context.tracestate;
  }

  /** The id of the trace, unless there is none: nobody brought one, and nobody was called. */
  get traceId(): string | undefined {
    return (this.#traceparent ?? this.#context.traceparent)?.slice(3, 35);
  }

  /** Replaces the service's own timeout for this request. The caller's stays: nobody waits longer than he does. */
  limit(timeoutMs: number): void {
    this.#limitMs = timeoutMs;
  }

  /** Milliseconds since the epoch. */
  get deadlineAt(): number {
    return Math.min(this.arrivedAt + this.#limitMs, this.#context.deadlineAt ?? Number.POSITIVE_INFINITY);
  }

  /** Aborts when the time is over or the caller has gone. Made on demand: most handlers never ask. */
  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    return (this.#signal ??= AbortSignal.any([this.request.signal, this.#controller.signal]));
  }

  /** The time is over: whoever listens to `signal` stops. */
  abort(reason: unknown): void {
    this.#controller ??= new AbortController();
    this.#controller.abort(reason);
  }
}
