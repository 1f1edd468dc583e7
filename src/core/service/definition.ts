// What a service's own function makes of `app`, and what its handlers are given.
import { Hono, type Context as HonoContext } from "hono";
import type { SmartClient } from "../client/index.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/logger.ts";
import { problemResponse } from "../lib/problem.ts";
import type { AddRoute, App, Context } from "./app.ts";
import type { ResolvedConfig } from "./config.ts";
import type { Exchange } from "./exchange.ts";
import { Health } from "./health.ts";
import { failedResponse } from "./problems.ts";
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

/** What a service works with. */
export type ServiceParts = {
  readonly realm: string;
  readonly resolved: ResolvedConfig;
  readonly logger: Logger;
  readonly api: SmartClient;
  readonly clock: Clock;
  readonly hostname: string;
};

/** What a service has defined: its routes, its checks, and what it wants done at its end. */
export type Definition = {
  readonly hono: Hono<HonoEnv>;
  readonly routes: readonly Route[];
  readonly health: Health;
  readonly cleanups: readonly (() => Promise<void> | void)[];
};

/** @throws what the service's own `define` throws */
export async function define(service: SmartService, options: ServiceParts): Promise<Definition> {
  const { realm, resolved, logger, api } = options;
  const hono = new Hono<HonoEnv>();
  const health = new Health(options.clock, options.hostname, logger);
  const routes: Route[] = [];
  const cleanups: (() => Promise<void> | void)[] = [];

  hono.onError((error, c) => failedResponse(logger, c.env, error));
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
  readonly #options: ServiceParts;

  constructor(c: HonoContext<HonoEnv>, input: Partial<RouteContext>, options: ServiceParts) {
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
