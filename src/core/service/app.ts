// What a service's definition works with: `app` while it is defined, a context with every request.
import type { Context as HonoContext, Hono } from "hono";
import { type SmartClient } from "../client/index.ts";
import type { Logger } from "../lib/logger.ts";
import type { Check, CheckOptions } from "./health.ts";
import type { HonoEnv, InputOf, ResultOf, RouteSpec } from "./route.ts";

/** What a handler gets: the parts of its request, and the service's own parts. */
export type Context<C = unknown, Path extends string = string, S extends RouteSpec = object> = InputOf<Path, S> & {
  readonly request: Request;
  /** Of the caller, or made here; it stands in every log line and goes out with every call through `api`. */
  readonly requestId: string;
  /** Aborts when the request's time is over or the caller has gone. */
  readonly signal: AbortSignal;
  /** The environment the service runs in: `local`, `test`, `prod`. */
  readonly realm: string;
  readonly config: C;
  /** Every line of it carries the request id. */
  readonly logger: Logger;
  /** The smart client: `api.get("service://identity/teams")`. */
  readonly api: SmartClient;
  /** hono's own context, for what middleware has put there. */
  readonly hono: HonoContext;
};

/** Adds a route. Patterns are hono's: `/teams/:id`, `/files/:name{.+\\.png}`, `/static/*`. */
export interface AddRoute<C> {
  <const Path extends string>(path: Path, handler: (context: Context<C, Path>) => unknown): void;
  <const Path extends string, const S extends RouteSpec>(
    path: Path,
    spec: S,
    handler: (context: Context<C, Path, S>) => ResultOf<S> | Promise<ResultOf<S>>,
  ): void;
}

export interface App<C = unknown> {
  readonly name: string;
  readonly realm: string;
  readonly config: C;
  readonly logger: Logger;
  readonly api: SmartClient;
  readonly get: AddRoute<C>;
  readonly put: AddRoute<C>;
  readonly post: AddRoute<C>;
  readonly delete: AddRoute<C>;
  readonly patch: AddRoute<C>;
  /** Adds a health check; it runs for `/healthcheck`, and in the background for `/readyz` unless it is not critical. */
  check(name: string, check: Check, options?: CheckOptions): void;
  /** Called once when the service ends, after the last request; last added first. */
  onStop(cleanup: () => Promise<void> | void): void;
  /** The hono app behind the routes: middleware (`app.hono.use(…)`), sub-apps (`app.hono.route("/v2", other)`). */
  readonly hono: Hono<HonoEnv>;
}
