// A started service without its port: from a Request to a Response, with everything in between that no handler should have
// to think of. `serve` puts it behind a socket, `testService` calls it directly.
import type { Hono } from "hono";
import { runInContext } from "../client/index.ts";
import { withUrl } from "../lib/http.ts";
import { checkDeclaredLength, limitBody } from "./body.ts";
import { Deadlines } from "./deadlines.ts";
import { define, type Definition, type ServiceParts } from "./definition.ts";
import { Exchange, pathOf, type ServerLike } from "./exchange.ts";
import { Gate } from "./gate.ts";
import type { Health } from "./health.ts";
import { type ServiceMetrics, serviceMetrics } from "./metrics.ts";
import { type Operation, operations } from "./operations.ts";
import { failedResponse, problem, unavailable } from "./problems.ts";
import type { HonoEnv, Route } from "./route.ts";
import type { SmartService } from "./smart-service.ts";

/** One answered request, for the access log. */
export type Answered = { readonly exchange: Exchange; readonly status: number; readonly tookMs: number };

export type ApplicationOptions = ServiceParts & {
  readonly onAnswer?: ((answered: Answered) => void) | undefined;
};

/** `serving` → `draining` (not ready, but answering) → `closing` (every answer also closes its connection). */
export type Phase = "starting" | "serving" | "draining" | "closing";

export class Application {
  readonly service: SmartService;
  readonly routes: readonly Route[];
  readonly health: Health;
  readonly #options: ApplicationOptions;
  readonly #hono: Hono<HonoEnv>;
  readonly #gate: Gate;
  readonly #deadlines: Deadlines;
  readonly #metrics: ServiceMetrics;
  readonly #operations: ReadonlyMap<string, Operation>;
  readonly #cleanups: readonly (() => Promise<void> | void)[];
  phase: Phase = "starting";
  /** When the last request was answered, in ms since the epoch; the paths of `operations` do not count. */
  answeredAt = Number.NEGATIVE_INFINITY;

  private constructor(service: SmartService, options: ApplicationOptions, defined: Definition) {
    this.service = service;
    this.routes = defined.routes;
    this.health = defined.health;
    this.#options = options;
    this.#hono = defined.hono;
    this.#cleanups = defined.cleanups;
    this.#gate = new Gate(options.clock, { maxInFlight: service.maxInFlight });
    this.#deadlines = new Deadlines(options.clock);
    this.#metrics = serviceMetrics(service.name, service.version, this.#gate);
    this.#operations = operations({
      service,
      routes: this.routes,
      health: this.health,
      metrics: () => this.#metrics.response(),
      provenance: options.resolved.provenance,
      notReady: () => this.notReady(),
    });
  }

  /**
   * Defines the service's routes and checks, and runs its critical checks once.
   * @throws what the service's own `define` throws
   */
  static async start(service: SmartService, options: ApplicationOptions): Promise<Application> {
    const defined = await define(service, options);
    const application = new Application(service, options, defined);
    await application.health.start();
    application.phase = "serving";
    return application;
  }

  /** Requests that are being handled. */
  get inFlight(): number {
    return this.#gate.inFlight + this.#gate.queued;
  }

  /** Why no requests should come here; empty when they should. At once, from memory. */
  notReady(): readonly string[] {
    return this.phase === "serving" ? this.health.failing() : [this.phase === "starting" ? "starting" : "draining"];
  }

  /** Answers one request. Never throws. @param server Bun's server, when there is one */
  fetch(given: Request, server?: ServerLike): Response | Promise<Response> {
    const request = withUrl(given);
    const path = pathOf(request.url);
    const operation = this.#operations.get(path);
    if (operation !== undefined && (request.method === "GET" || request.method === "HEAD")) return operation(request);
    const exchange = new Exchange(request, path, server, this.#options.clock.now(), this.service.timeoutMs);
    if (this.#gate.tryEnter()) return this.#handle(exchange);
    const patienceMs = exchange.deadlineAt - exchange.arrivedAt;
    return this.#gate.enter(patienceMs).then((admitted) => {
      if (!admitted) {
        this.#metrics.refused("overloaded");
        return this.#finish(exchange, this.#thrown(exchange, overloaded()));
      }
      if (exchange.deadlineAt > this.#options.clock.now()) return this.#handle(exchange);
      this.#metrics.refused("timed_out");
      return this.#leave(exchange, this.#thrown(exchange, timedOut()));
    });
  }

  /** Ends timers and checks, and runs what the service added with `onStop`, last first. */
  async stop(): Promise<void> {
    this.health.stop();
    this.#deadlines.stop();
    this.#metrics.stop();
    for (const cleanup of this.#cleanups.toReversed()) {
      try {
        await cleanup();
      } catch (error) {
        this.#options.logger.error({ err: error }, "clean-up failed");
      }
    }
  }

  /** The request has its place inside; whatever happens, it leaves once. */
  #handle(exchange: Exchange): Response | Promise<Response> {
    let answer: Response | Promise<Response>;
    try {
      answer = runInContext(exchange, () => this.#route(exchange));
    } catch (error) {
      answer = this.#thrown(exchange, error);
    }
    return answer instanceof Promise ? this.#await(exchange, answer) : this.#leave(exchange, answer);
  }

  #route(exchange: Exchange): Response | Promise<Response> {
    let { request } = exchange;
    if (request.method !== "GET" && request.method !== "HEAD") {
      checkDeclaredLength(request.headers, this.service.maxBodyBytes);
      request = limitBody(request, this.service.maxBodyBytes);
    }
    return this.#hono.fetch(request, exchange);
  }

  /** Waits for the handler, but not longer than the request may take. */
  #await(exchange: Exchange, answer: Promise<Response>): Promise<Response> {
    return new Promise<Response>((resolve) => {
      let over = false;
      this.#deadlines.add(exchange, () => {
        over = true;
        const reason = timedOut();
        exchange.abort(reason);
        resolve(this.#leave(exchange, this.#thrown(exchange, reason)));
      });
      const settle = (response: Response): void => {
        // too late: the caller has his 504, and nobody will read this
        if (over) void response.body?.cancel();
        else {
          this.#deadlines.remove(exchange);
          resolve(this.#leave(exchange, response));
        }
      };
      answer.then(settle, (error: unknown) => {
        if (!over) settle(this.#thrown(exchange, error));
      });
    });
  }

  #leave(exchange: Exchange, response: Response): Response {
    this.#gate.leave();
    return this.#finish(exchange, response);
  }

  #finish(exchange: Exchange, response: Response): Response {
    const tookMs = performance.now() - exchange.startedAt;
    this.answeredAt = exchange.arrivedAt + tookMs;
    this.#metrics.requests.observe(exchange.request.method, exchange.route, response.status, tookMs / 1_000);
    this.#options.onAnswer?.({ exchange, status: response.status, tookMs });
    return this.phase === "closing" ? withHeader(response, "connection", "close") : response;
  }

  #thrown(exchange: Exchange, error: unknown): Response {
    return failedResponse(this.#options.logger, exchange, error);
  }
}

function overloaded(): Error {
  return unavailable("the service has more requests than it can take", 1, { code: "overloaded" });
}

function timedOut(): Error {
  return problem(504, "the request's time is over; it may have been carried out in part");
}

/** A response that a fetch brought, or a redirect, has headers that cannot be set. */
function withHeader(response: Response, name: string, value: string): Response {
  try {
    response.headers.set(name, value);
    return response;
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    const copy = new Response(response.body, response);
    copy.headers.set(name, value);
    return copy;
  }
}
