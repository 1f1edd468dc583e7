// A route is one value: what it takes as zod schemas, what it answers, and the handler. The schemas check requests here and
// become the OpenAPI document in openapi.ts, so the two cannot differ.
import { Hono } from "hono";
import type { z } from "zod";
import { problemOf, ProblemFault, requestIdOf, withUrl } from "../core/lib/http.ts";
import type { ProblemCode } from "../core/lib/problem.ts";
import { isLoopback } from "../core/model/names.ts";
import type { Access, Caller, Need } from "./access.ts";
import { readBody } from "./body.ts";
import type { Limits } from "./limits.ts";

type Method = "GET" | "PUT" | "POST" | "PATCH" | "DELETE";

/** What a request came with besides itself. */
type Peer = {
  /** The address it came from. */
  readonly address: string;
  /** Lifts the connection's idle limit, for a stream or a wait; returns how to put it back when that is over. */
  readonly noIdleLimit: () => () => void;
};

/** One checked request. */
export type Call<P, Q, B> = {
  readonly params: P;
  readonly query: Q;
  readonly body: B;
  readonly request: Request;
  readonly peer: Peer;
  readonly caller: Caller;
};

export type RouteInit<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType> = {
  readonly method: Method;
  /** As OpenAPI writes it: `/v1/services/{service}`. */
  readonly path: string;
  readonly summary: string;
  /** Which callers are admitted; asked before anything of the request is read. */
  readonly needs: Need;
  readonly params: P;
  readonly query: Q;
  readonly body?: B;
  /** A body that is no JSON document and that the handler reads itself, with bounds of its own. */
  readonly upload?: { readonly means: string; readonly type: string };
  /** Statuses with what they mean and the body's schema, JSON unless `type` says otherwise. */
  readonly answers: Readonly<
    Record<number, { readonly means: string; readonly schema?: z.ZodType; readonly type?: string }>
  >;
  readonly problems: readonly ProblemCode[];
  readonly handle: (call: Call<z.output<P>, z.output<Q>, z.output<B>>) => Promise<Response> | Response;
};

/** A route whose types are known only to itself. */
export type Route = Omit<RouteInit<z.ZodType, z.ZodType, z.ZodType>, "handle"> & {
  readonly respond: (
    request: Request,
    params: Readonly<Record<string, string>>,
    peer: Peer,
    caller: Caller,
  ) => Promise<Response>;
};

/** Checks path, query and body against the schemas, in that order, then handles. */
export function route<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType>({
  handle,
  ...init
}: RouteInit<P, Q, B>): Route {
  return {
    ...init,
    async respond(request, rawParams, peer, caller) {
      const params = init.params.parse(rawParams);
      const query = init.query.parse(queryOf(request));
      const body = (init.body === undefined ? undefined : init.body.parse(await readBody(request))) as z.output<B>;
      return handle({ params, query, body, request, peer, caller });
    },
  };
}

/** @throws ProblemFault `invalid` when a parameter is there twice: which one counts would be a guess */
function queryOf(request: Request): Record<string, string> {
  const { searchParams } = new URL(request.url);
  const names = [...searchParams.keys()];
  const double = names.find((name, index) => names.indexOf(name) < index);
  if (double !== undefined) throw new ProblemFault("invalid", `the query parameter ${double} is there twice`);
  return Object.fromEntries(searchParams);
}

export type RouterOptions = {
  readonly routes: readonly Route[];
  readonly access: Access;
  readonly limits: Limits;
  /** Something thrown that nobody meant to throw. */
  readonly onBug: (error: unknown, requestId: string) => void;
  /** Called for every answer; `path` is the route's, or undefined when none matched. */
  readonly onAnswer: (method: string, path: string | undefined, status: number, seconds: number) => void;
};

/** Answers any request; never throws. Every answer carries X-Request-Id. */
export type Respond = (request: Request, peer: Peer) => Promise<Response>;

type Environment = { Bindings: { peer: Peer; matched: { path?: string } } };

/** Needs whose requests are few and must get through when all others crowd: without acks no wait would ever end. */
const UNLIMITED: ReadonlySet<Need> = new Set(["nothing", "lease", "peer"]);

/** Streams are counted as such, by the route that opens them. */
function isLimited({ needs, answers }: Route): boolean {
  return !UNLIMITED.has(needs) && answers[200]?.type !== "text/event-stream";
}

export function createRouter({ routes, access, limits, onBug, onAnswer }: RouterOptions): Respond {
  const app = new Hono<Environment>();
  for (const one of routes) {
    app.on(one.method, honoPath(one.path), async (context) => {
      const { matched, peer } = context.env;
      matched.path = one.path;
      const caller = access.admit(one.needs, context.req.raw.headers.get("authorization"));
      const leave = isLimited(one) ? limits.request(peer.address) : undefined;
      try {
        return await one.respond(context.req.raw, context.req.param(), peer, caller);
      } finally {
        leave?.();
      }
    });
  }
  app.onError((error) => {
    throw error;
  });
  app.notFound((context) => {
    const { path, method } = context.req;
    const allowed = routes.filter((one) => matches(one.path, path)).map((one) => one.method);
    if (allowed.length === 0) throw new ProblemFault("not_found", `there is no ${path}; see /openapi.json`);
    const allow = [...new Set(allowed)].join(", ");
    throw new ProblemFault("not_found", `${path} knows no ${method}; it takes ${allow}`, { headers: { allow } });
  });
  return async (request, peer) => {
    const started = performance.now();
    const requestId = requestIdOf(request.headers);
    const matched: { path?: string } = {};
    let response: Response;
    try {
      refusePages(request.headers.get("origin"));
      response = await app.fetch(withUrl(request), { peer, matched });
      response.headers.set("x-request-id", requestId);
    } catch (error) {
      response = problemOf(error, requestId, (bug) => onBug(bug, requestId));
      if (response.status === 503 && !response.headers.has("retry-after")) response.headers.set("retry-after", "1");
    }
    onAnswer(request.method, matched.path, response.status, (performance.now() - started) / 1_000);
    return response;
  };
}

/**
 * Keeps web pages out: one that somebody opens on this machine can give loopback a name of its own (DNS rebinding), and would
 * then be asked for nothing. Browsers send Origin with every write; programs do not.
 */
function refusePages(origin: string | null): void {
  if (origin === null) return;
  const host = URL.canParse(origin) ? new URL(origin).hostname.replaceAll(/[[\]]/g, "") : "";
  if (!isLoopback(host)) throw new ProblemFault("forbidden", `pages of ${origin} may not ask Atlas`);
}

function honoPath(path: string): string {
  return path.replaceAll(/\{(\w+)\}/g, ":$1");
}

function matches(routePath: string, path: string): boolean {
  const [wanted, given] = [routePath.split("/"), path.split("/")];
  return (
    wanted.length === given.length &&
    wanted.every((part, index) => (part.startsWith("{") ? given[index] !== "" : part === given[index]))
  );
}
