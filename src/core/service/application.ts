// A started service without its port: from a Request to a Response, with everything in between that no handler should have
// to think of. `serve` puts it behind a socket, `testService` calls it directly.
import { Hono, type Context as HonoContext } from "hono";
import { runInContext, type SmartClient } from "../client/index.ts";
import type { Clock } from "../lib/clock.ts";
import { withUrl } from "../lib/http.ts";
import type { Logger } from "../lib/logger.ts";
import { problemResponse } from "../lib/problem.ts";
import type { AddRoute, App, Context } from "./app.ts";
import { checkDeclaredLength, limitBody } from "./body.ts";
import type { ResolvedConfig } from "./config.ts";
import { Deadlines } from "./deadlines.ts";
import { Exchange, pathOf, type ServerLike } from "./exchange.ts";
import { Gate } from "./gate.ts";
import { Health } from "./health.ts";
import { type ServiceMetrics, serviceMetrics } from "./metrics.ts";
import { type Operation, operations } from "./operations.ts";
import { problem, thrownResponse, unavailable } from "./problems.ts";
import {
  type HonoEnv,
  type Method,
  METHODS,
  type Route,
  type RouteContext,
  routeHandler,
  type RouteSpec,
} from "./route.ts";
import type { SmartService } from "./smart-service.ts";

/** One answered request, for the access log. */
export type Answered = { readonly exchange: Exchange; readonly status: number; readonly tookMs: number };

export type ApplicationOptions = {
  readonly realm: string;
  readonly resolved: ResolvedConfig;
  readonly logger: Logger;
  readonly api: SmartClient;
  readonly clock: Clock;
  readonly hostname: string;
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

  private constructor(service: SmartService, options: ApplicationOptions, defined: Defined) {
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
    return failed(this.#options.logger, exchange, error);
  }
}

function overloaded(): Error {
  return unavailable("the service has more requests than it can take", 1, { code: "overloaded" });
}

function timedOut(): Error {
  return problem(504, "the request's time is over; it may have been carried out in part");
}

function failed(logger: Logger, exchange: Exchange, thrown: unknown): Response {
  const { request, requestId, traceId, route } = exchange;
  // the body broke off because its sender has gone: no bug of the service, and nobody reads the answer
  const left = request.signal.aborted && thrown instanceof DOMException && thrown.name === "AbortError";
  const error = left ? problem(CALLER_GONE, "the caller has gone", { code: "caller_gone" }) : thrown;
  return thrownResponse(error, requestId, (bug) =>
    logger.error({ err: bug, requestId, traceId, route }, "request failed"),
  );
}

/** As nginx logs it. */
const CALLER_GONE = 499;

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

type Defined = {
  readonly hono: Hono<HonoEnv>;
  readonly routes: readonly Route[];
  readonly health: Health;
  readonly cleanups: readonly (() => Promise<void> | void)[];
};

async function define(service: SmartService, options: ApplicationOptions): Promise<Defined> {
  const { realm, resolved, logger, api } = options;
  const hono = new Hono<HonoEnv>();
  const health = new Health(options.clock, options.hostname, logger);
  const routes: Route[] = [];
  const cleanups: (() => Promise<void> | void)[] = [];

  hono.onError((error, c) => failed(logger, c.env, error));
  hono.notFound((c) => {
    const { requestId } = c.env;
    const allowed = allowedMethods(hono, c.req.path);
    const code =
      allowed.length === 0 ? { code: "not_found", status: 404 } : { code: "method_not_allowed", status: 405 };
    return problemResponse({
      ...code,
      detail: allowed.length === 0 ? `there is no ${c.req.path}` : `${c.req.path} does not know ${c.req.method}`,
      requestId,
      headers: allowed.length === 0 ? undefined : { allow: allowed.join(", ") },
    });
  });

  const contextOf = (c: HonoContext<HonoEnv>, input: Partial<RouteContext>): RouteContext =>
    new RequestContext(c, input, options);
  const add =
    (method: Method): AddRoute<unknown> =>
    (path: string, specOrHandler: unknown, maybeHandler?: unknown): void => {
      const spec = typeof specOrHandler === "function" ? {} : (specOrHandler as RouteSpec);
      const handler = (typeof specOrHandler === "function" ? specOrHandler : maybeHandler) as Route["handler"];
      const route: Route = { method, path, spec, handler };
      routes.push(route);
      hono[method](path, routeHandler(route, contextOf));
    };
  const [get, put, post, del, patch] = METHODS.map(add) as [
    AddRoute<unknown>,
    AddRoute<unknown>,
    AddRoute<unknown>,
    AddRoute<unknown>,
    AddRoute<unknown>,
  ];
  const app: App = {
    name: service.name,
    realm,
    config: resolved.config,
    logger,
    api,
    get,
    put,
    post,
    delete: del,
    patch,
    check: (name, check, checkOptions) => health.add(name, check, checkOptions),
    onStop: (cleanup) => cleanups.push(cleanup),
    hono,
  };
  await service.define(app as App<never>);
  return { hono, routes, health, cleanups };
}

/** The methods that a path has routes for; middleware (`*` of all methods) does not count. */
function allowedMethods(hono: Hono<HonoEnv>, path: string): readonly string[] {
  return METHODS.map((method) => method.toUpperCase()).filter((method) =>
    hono.router.match(method, path)[0].some(([[, route]]) => route.method === method),
  );
}

/** A handler's context. Getters, because most handlers want two or three of these. */
class RequestContext implements Context {
  readonly hono: HonoContext;
  readonly #input: Partial<RouteContext>;
  readonly #options: ApplicationOptions;

  constructor(c: HonoContext<HonoEnv>, input: Partial<RouteContext>, options: ApplicationOptions) {
    this.hono = c;
    this.#input = input;
    this.#options = options;
  }

  get #exchange(): Exchange {
    return this.hono.env as Exchange;
  }
  get body(): undefined {
    return this.#input.body as undefined;
  }

  get params(): Readonly<Record<string, string>> {
    return (this.#input.params ?? this.hono.req.param()) as Readonly<Record<string, string>>;
  }
  get query(): Readonly<Record<string, string | undefined>> {
    return (this.#input.query ?? this.hono.req.query()) as Readonly<Record<string, string | undefined>>;
  }
  get request(): Request {
    return this.hono.req.raw;
  }
  get requestId(): string {
    return this.#exchange.requestId;
  }
  get signal(): AbortSignal {
    return this.#exchange.signal;
  }
  get realm(): string {
    return this.#options.realm;
  }
  get config(): unknown {
    return this.#options.resolved.config;
  }
  get logger(): Logger {
    const { requestId, traceparent } = this.#exchange;
    return this.#options.logger.child({ requestId, traceId: traceparent.slice(3, 35) });
  }
  get api(): SmartClient {
    return this.#options.api;
  }
}
