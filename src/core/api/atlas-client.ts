// Talking to Atlas over HTTP: what the sidecar, the generator and the operator's commands share.
import { z } from "zod";
import { describeError, Fault } from "../lib/errors.ts";
import type { FieldError } from "../lib/problem.ts";

/** Atlas answered with a problem. `code` is the problem's own (`not_found`, `conflict`, `not_applied` …). */
export class AtlasProblem extends Fault {
  readonly status: number;
  readonly errors: readonly FieldError[];
  /** The whole problem document, for members such as `pending`. */
  readonly body: Readonly<Record<string, unknown>>;

  constructor(status: number, body: Readonly<Record<string, unknown>>, request: string) {
    const parsed = problemSchema.safeParse(body);
    const { code, detail, errors } = parsed.success
      ? parsed.data
      : { code: "internal", detail: `status ${status}`, errors: [] };
    super({
      code,
      message: `Atlas refused ${request}: ${detail}`,
      hint: errors.map(({ path, message }) => `${path}: ${message}`).join("\n") || undefined,
    });
    this.status = status;
    this.errors = errors;
    this.body = body;
  }
}

const problemSchema = z.object({
  code: z.string(),
  detail: z.string(),
  errors: z.array(z.object({ path: z.string(), message: z.string() })).default([]),
});

export type AtlasClientOptions = {
  /** Base URLs of the replicas, asked in this order; one that does not answer is followed by the next. */
  readonly urls: readonly string[];
  readonly token?: string | undefined;
  /** PEM text of the certificate authority of an Atlas with TLS. */
  readonly tlsCa?: string | undefined;
};

export type AtlasRequest<T> = {
  readonly method?: "GET" | "PUT" | "POST" | "PATCH" | "DELETE";
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** What the answer must look like. */
  readonly schema: z.ZodType<T>;
  /** For the whole exchange, in ms. @default 10_000 */
  readonly timeoutMs?: number;
};

export interface AtlasClient {
  /**
   * One request, to the first replica that answers.
   * @throws AtlasProblem when Atlas refuses; Fault `unreachable` when no replica answers; Fault `bad_answer` when the
   * answer is not what the schema says
   */
  request<T>(path: string, request: AtlasRequest<T>): Promise<T>;
  /** A raw exchange with the first replica that answers: the watch stream uses it. @throws Fault `unreachable` */
  fetch(
    path: string,
    init: { method?: string; headers?: Record<string, string>; body?: string; signal: AbortSignal },
  ): Promise<Response>;
}

export function createAtlasClient(options: AtlasClientOptions): AtlasClient {
  let preferred = 0;

  const send: AtlasClient["fetch"] = async (path, init) => {
    const failures: string[] = [];
    for (let turn = 0; turn < options.urls.length; turn += 1) {
      const index = (preferred + turn) % options.urls.length;
      const base = options.urls[index];
      if (base === undefined) continue;
      try {
        const response = await fetch(new URL(path, base), {
          method: init.method ?? "GET",
          headers: {
            accept: "application/json",
            ...(options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }),
            ...init.headers,
          },
          ...(init.body === undefined ? {} : { body: init.body }),
          ...(options.tlsCa === undefined ? {} : { tls: { ca: options.tlsCa } }),
          signal: init.signal,
          redirect: "manual",
        });
        preferred = index;
        return response;
      } catch (error) {
        if (
          init.signal.aborted &&
          !(init.signal.reason instanceof DOMException && init.signal.reason.name === "TimeoutError")
        )
          throw error;
        failures.push(`${base} ${describeError(error)}`);
        if (init.signal.aborted) break;
      }
    }
    throw new Fault({
      code: "unreachable",
      message: `could not reach Atlas: ${failures.join("; ")}`,
      hint: "Is it running, and is --atlas (or SMARTSTACK_ATLAS) its address?",
    });
  };

  return {
    fetch: send,
    async request(path, request) {
      const method = request.method ?? "GET";
      const response = await send(path, {
        method,
        headers: { ...(request.body === undefined ? {} : { "content-type": "application/json" }), ...request.headers },
        ...(request.body === undefined ? {} : { body: JSON.stringify(request.body) }),
        signal: AbortSignal.timeout(request.timeoutMs ?? 10_000),
      });
      const answer = parseJson(await response.text());
      if (!response.ok) throw new AtlasProblem(response.status, isRecord(answer) ? answer : {}, `${method} ${path}`);
      const parsed = request.schema.safeParse(answer);
      if (!parsed.success) {
        throw new Fault({
          code: "bad_answer",
          message: `${method} ${path} answered something unexpected: ${z.prettifyError(parsed.error)}`,
          hint: "Is that address really Atlas, and not older than this program?",
        });
      }
      return parsed.data;
    },
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    // not JSON: a proxy's page, say; the caller reports it by status or schema
    return error instanceof SyntaxError ? text : undefined;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
