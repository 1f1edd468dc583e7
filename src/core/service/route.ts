// Typed routes: what a route declares, what its handler then knows, and the way from a request to the handler and back.
import type { Context as HonoContext } from "hono";
import type { z } from "zod";
import type { Exchange } from "./exchange.ts";
import { readJson } from "./body.ts";
import { invalidRequest } from "./problems.ts";

export const METHODS = ["get", "put", "post", "delete", "patch"] as const;
export type Method = (typeof METHODS)[number];

/** What a route declares beside its path; everything is optional. */
export type RouteSpec = {
  /** Of the path's parameters; they arrive as text, so numbers want `z.coerce.number()`. */
  readonly params?: z.ZodType;
  /** Of the query string; text too, and a list where a name is repeated. */
  readonly query?: z.ZodType;
  /** Of the JSON body. Without it the body is not read: `request` has it. */
  readonly body?: z.ZodType;
  /** Of the answer: what it does not know is left out, and an answer that does not match is a bug of the service (500). */
  readonly returns?: z.ZodType;
  /** Of a successful answer. @default 200, or 204 when the handler returns nothing */
  readonly status?: number;
  /** One line for the OpenAPI document. */
  readonly summary?: string;
  readonly description?: string;
  readonly tags?: readonly string[];
  /** In ms; the handler's `signal` aborts then and the caller gets a 504. @default the service's `timeoutMs` */
  readonly timeoutMs?: number;
};

type SegmentParam<Segment extends string> = Segment extends `:${infer Name}{${string}`
  ? { readonly [K in Name]: string }
  : Segment extends `:${infer Name}?`
    ? { readonly [K in Name]?: string }
    : Segment extends `:${infer Name}`
      ? { readonly [K in Name]: string }
      : unknown;
type PathSegments<Path extends string> = Path extends `${infer Head}/${infer Tail}`
  ? SegmentParam<Head> & PathSegments<Tail>
  : SegmentParam<Path>;

/** The parameters of a path pattern: `/teams/:id` → `{ id: string }`. */
type PathParams<Path extends string> = string extends Path
  ? Readonly<Record<string, string>>
  : { [K in keyof PathSegments<Path>]: PathSegments<Path>[K] };

type Declared<S extends RouteSpec, K extends "params" | "query" | "body", Otherwise> =
  S[K] extends z.ZodType<infer T> ? T : Otherwise;

/** What a handler is given of its request. */
export type InputOf<Path extends string, S extends RouteSpec> = {
  readonly params: Declared<S, "params", PathParams<Path>>;
  readonly query: Declared<S, "query", Readonly<Record<string, string | undefined>>>;
  readonly body: Declared<S, "body", undefined>;
};

/** What a handler may return: the declared answer, or a Response of its own. */
export type ResultOf<S extends RouteSpec> = S["returns"] extends z.ZodType<unknown, infer T> ? T | Response : unknown;

/** A declared route, its types forgotten. */
export type Route = {
  readonly method: Method;
  readonly path: string;
  readonly spec: RouteSpec;
  readonly handler: (context: RouteContext) => unknown;
};

/** A handler's context before the service adds its own parts. */
export type RouteContext = {
  readonly params: unknown;
  readonly query: unknown;
  readonly body: unknown;
};

/** hono's bindings are the exchange itself. */
export type HonoEnv = { readonly Bindings: Exchange };

/** What a handler without declared parts is given. */
const NOTHING: Partial<RouteContext> = {};

/**
 * The route as hono's handler.
 * @param contextOf adds config, logger and the rest to what was read from the request
 */
export function routeHandler(
  route: Route,
  contextOf: (c: HonoContext<HonoEnv>, input: Partial<RouteContext>) => RouteContext,
): (c: HonoContext<HonoEnv>) => Response | Promise<Response> {
  const { spec, handler, path } = route;
  const answer = (c: HonoContext<HonoEnv>, input: Partial<RouteContext>): Response | Promise<Response> => {
    const result = handler(contextOf(c, input));
    return result instanceof Promise ? result.then((value) => respond(value, spec, c)) : respond(result, spec, c);
  };
  return (c) => {
    c.env.route = path;
    if (spec.timeoutMs !== undefined) c.env.limit(spec.timeoutMs);
    if (spec.body === undefined)
      return answer(c, spec.params === undefined && spec.query === undefined ? NOTHING : readInput(c, spec, undefined));
    return readJson(c.req.raw).then((body) => answer(c, readInput(c, spec, { value: body })));
  };
}

/** Checks every declared part, so that one answer names all that is wrong. */
function readInput(
  c: HonoContext<HonoEnv>,
  spec: RouteSpec,
  body: { readonly value: unknown } | undefined,
): Partial<RouteContext> {
  const input: { -readonly [K in keyof RouteContext]?: unknown } = {};
  const problems: Parameters<typeof invalidRequest>[0][number][] = [];
  const read = (part: keyof RouteContext, schema: z.ZodType | undefined, value: () => unknown): void => {
    if (schema === undefined) return;
    const result = schema.safeParse(value());
    if (result.success) input[part] = result.data;
    else problems.push({ part, error: result.error });
  };
  read("params", spec.params, () => c.req.param());
  read("query", spec.query, () => queryOf(c));
  read("body", spec.body, () => body?.value);
  if (problems.length > 0) throw invalidRequest(problems);
  return input;
}

function queryOf(c: HonoContext<HonoEnv>): Record<string, string | string[]> {
  return Object.fromEntries(
    Object.entries(c.req.queries()).map(([name, values]) => [name, values.length === 1 ? (values[0] ?? "") : values]),
  );
}

function respond(value: unknown, spec: RouteSpec, c: HonoContext<HonoEnv>): Response {
  if (value instanceof Response) return untimed(value, c.env);
  if (spec.returns === undefined) {
    const status = spec.status ?? (value === undefined ? 204 : 200);
    if (value === undefined) return new Response(null, { status });
    return status === 200 ? Response.json(value) : Response.json(value, { status });
  }
  const result = spec.returns.safeParse(value);
  // the caller is not to blame, and not to be told
  if (!result.success) throw new Error("the answer does not match `returns`", { cause: result.error });
  return Response.json(result.data, { status: spec.status ?? 200 });
}

/** A stream of events may be quiet as long as it likes; everything else is cut when nothing moves for minutes. */
export function untimed(response: Response, { request, server }: Exchange): Response {
  if (response.headers.get("content-type")?.startsWith("text/event-stream")) server?.timeout(request, 0);
  return response;
}
