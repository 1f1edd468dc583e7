// The sidecar over HTTP: read-only on the admin port, for people and Prometheus; with writes on the unix socket, for the
// instances of this host. Who may open the socket is the file system's to say.
import { type Context, Hono } from "hono";
import { z } from "zod";
import { problemOf, ProblemFault, requestIdOf } from "../core/lib/http.ts";
import type { Logger } from "../core/lib/logger.ts";
import { patchLocalSchema, putLocalSchema, type SidecarInfo } from "../core/model/local.ts";
import { instanceNameSchema, serviceName, isLoopback } from "../core/model/names.ts";
import type { Agent } from "./agent.ts";

const UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000 };
const MAX_WAIT_MS = 600_000;
/** For how long a result of `/healthcheck` is good, in s, as in Runscope's library: a pass and a failure. */
const EXPIRES_S = { passed: 27, failed: 9 };

const drainQuery = z.strictObject({
  wait: z.literal("applied", "the only thing to wait for is applied").optional(),
  timeout: z
    .string()
    .regex(/^\d{1,6}(ms|s|m)$/, "a time is a number with ms, s or m, such as 10s")
    .transform((text) => Number.parseInt(text, 10) * (UNITS_MS[/[a-z]+$/.exec(text)?.[0] ?? "ms"] ?? 1))
    .refine((ms) => ms <= MAX_WAIT_MS, "nobody waits longer than 10m")
    .prefault("10s"),
});
const pathParams = z.object({ service: serviceName, instance: instanceNameSchema });

export type AdminOptions = {
  readonly agent: Agent;
  readonly info: () => SidecarInfo;
  /** Own metrics and HAProxy's, in the Prometheus text format. */
  readonly metrics: () => Promise<string>;
  readonly logger: Logger;
  readonly now: () => number;
};

/** Answers one request; never throws. */
export type Handler = (request: Request) => Promise<Response>;

/** What anybody may read. */
function readRoutes({ agent, info, metrics, now }: AdminOptions): Hono {
  const app = new Hono({ getPath: pathOf });
  app.get("/livez", () => Response.json({ status: "alive" }));
  app.get("/readyz", () => {
    const { ready, troubles } = agent.status();
    if (ready) return Response.json({ status: "ready", degraded: troubles });
    throw new ProblemFault("unavailable", "HAProxy runs no snapshot yet, neither from Atlas nor from disk", {
      extra: { degraded: troubles },
    });
  });
  app.get("/healthcheck", () => healthcheck(agent, info().host, now()));
  app.get("/metrics", async () => new Response(await metrics(), { headers: { "content-type": METRICS_TYPE } }));
  app.get("/v1/info", () => Response.json(info()));
  app.get("/v1/snapshot", () => Response.json(agent.snapshot()));
  app.get("/v1/why/:service", async (context) =>
    Response.json(await agent.why(serviceName.parse(context.req.param("service")))),
  );
  return app;
}

const METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** The shape of Runscope's open-source healthcheck library. */
function healthcheck(agent: Agent, hostname: string, now: number): Response {
  const { ready, troubles } = agent.status();
  const passed = ready && troubles.length === 0;
  const timestamp = now / 1_000;
  const output = passed ? "HAProxy runs what Atlas says" : [...troubles, ...(ready ? [] : ["not ready"])].join("; ");
  const expires = timestamp + (passed ? EXPIRES_S.passed : EXPIRES_S.failed);
  return Response.json(
    {
      hostname,
      status: passed ? "success" : "failure",
      timestamp,
      results: [{ checker: "routing", output, passed, timestamp, expires }],
    },
    { status: passed ? 200 : 500 },
  );
}

/** The admin port. Only for programs of this host or that name it rightly: a web page that someone opens here must not read it. */
export function adminHandler(options: AdminOptions, hosts: readonly string[], socket: string): Handler {
  const app = readRoutes(options);
  return finish(app, options.logger, (request) => {
    checkHost(request, hosts);
    if (request.method !== "GET" && request.method !== "HEAD") {
      throw new ProblemFault("forbidden", `this port is read-only; writes go over the socket ${socket}`);
    }
  });
}

/** The socket: everything. */
export function socketHandler(options: AdminOptions): Handler {
  const { locals } = options.agent;
  const app = readRoutes(options);
  app.put("/v1/local/:service/:instance", async (context) => {
    const { service, instance } = pathParams.parse(context.req.param());
    const put = putLocalSchema.parse(await jsonOf(context));
    return Response.json(await locals.put(service, instance, put));
  });
  app.patch("/v1/local/:service/:instance", async (context) => {
    const { service, instance } = pathParams.parse(context.req.param());
    const { wait, timeout } = drainQuery.parse(context.req.query());
    patchLocalSchema.parse(await jsonOf(context));
    return Response.json(await locals.drain(service, instance, wait === undefined ? undefined : timeout));
  });
  app.delete("/v1/local/:service/:instance", async (context) => {
    const { service, instance } = pathParams.parse(context.req.param());
    return Response.json(await locals.remove(service, instance));
  });
  return finish(app, options.logger, () => undefined);
}

function finish(app: Hono, logger: Logger, check: (request: Request) => void): Handler {
  const problem = (error: unknown, requestId: string): Response =>
    problemOf(error, requestId, (bug) => logger.error({ err: bug, requestId }, "a request failed by our fault"));
  app.notFound((context) => {
    const detail = `nothing answers ${context.req.method} ${context.req.path}`;
    return problem(new ProblemFault("not_found", detail), requestIdOf(context.req.raw.headers));
  });
  app.onError((error, context) => problem(error, requestIdOf(context.req.raw.headers)));
  return async (request) => {
    try {
      check(request);
    } catch (error) {
      return problem(error, requestIdOf(request.headers));
    }
    return app.fetch(request);
  };
}

/** @throws ProblemFault `forbidden` for a Host that is not this one, and for a page of another origin */
function checkHost(request: Request, hosts: readonly string[]): void {
  const host = request.headers.get("host");
  // HTTP/1.0 without Host is no browser
  if (host !== null && !isAllowed(`http://${host}`, hosts)) {
    throw new ProblemFault(
      "forbidden",
      `this is not ${host}; the admin port answers to ${hosts.join(", ")} and loopback`,
    );
  }
  const origin = request.headers.get("origin");
  if (origin !== null && !isAllowed(origin, hosts)) {
    throw new ProblemFault("forbidden", `pages of ${origin} may not ask this port`);
  }
}

function isAllowed(url: string, hosts: readonly string[]): boolean {
  if (!URL.canParse(url)) return false;
  const hostname = new URL(url).hostname.replaceAll(/[[\]]/g, "").toLowerCase();
  return isLoopback(hostname) || hosts.some((host) => host.toLowerCase() === hostname);
}

/** @throws ProblemFault `wrong_type`, `invalid` */
async function jsonOf(context: Context): Promise<unknown> {
  const type = context.req.header("content-type")?.split(";")[0]?.trim().toLowerCase();
  if (type !== "application/json") throw new ProblemFault("wrong_type", "the body has to be application/json");
  const text = await context.req.text();
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ProblemFault("invalid", "the body is not JSON", { cause: error });
  }
}

/** A request without Host has a bare path as its URL. */
function pathOf(request: Request): string {
  return new URL(request.url, "http://localhost").pathname;
}
