// Talking to Atlas over HTTP: what the sidecar, the generator and the operator's commands share.
import type { z } from "zod";
import { errorCode, Fault } from "../lib/errors.ts";
import { ApiProblem, describeFailure, describeTlsFailure, readAnswer } from "./exchange.ts";

/** Atlas answered with a problem. `code` is the problem's own (`not_found`, `conflict`, `not_applied` …). */
export class AtlasProblem extends ApiProblem {
  constructor(status: number, body: Readonly<Record<string, unknown>>, request: string) {
    super("Atlas", status, body, request, HINTS[status]);
  }
}

const HINTS: Readonly<Record<number, string>> = {
  401: "--token-file (or SMARTSTACK_TOKEN_FILE) names a file that holds a token of this Atlas.",
  403: "Use a token whose role allows it; docs/security.md says what each one does.",
};

/** True when Atlas does not take this caller's token for what was asked: asking again at once changes nothing. */
export function isRefusedAccess(error: unknown): boolean {
  return error instanceof AtlasProblem && (error.status === 401 || error.status === 403);
}

/** A value, or where to find it at each request: it changes when its file is read again. */
type Current<T> = T | (() => T);

/** How Atlas is shown who asks, and how it shows who answers. */
type Credentials = {
  readonly token?: Current<string | undefined>;
  /** PEM text of the certificate authority of an Atlas with TLS. */
  readonly tlsCa?: Current<string | undefined>;
};

function currentOf(value: Current<string | undefined>): string | undefined {
  return typeof value === "function" ? value() : value;
}

export type AtlasClientOptions = Credentials & {
  /** Base URLs of the replicas, asked in this order; one that does not answer is followed by the next. */
  readonly urls: readonly string[];
};

export type AtlasRequest<T> = {
  readonly method?: "GET" | "PUT" | "POST" | "PATCH" | "DELETE";
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** What the answer must look like. */
  readonly schema: z.ZodType<T>;
  /** For the whole exchange, in ms. @default 10_000 */
  readonly timeoutMs?: number;
  /** Ends the exchange early; then the signal's reason is thrown. */
  readonly signal?: AbortSignal;
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
    init: { method?: string; headers?: Record<string, string>; body?: string | Blob; signal: AbortSignal },
  ): Promise<Response>;
}

export function createAtlasClient(options: AtlasClientOptions): AtlasClient {
  let preferred = 0;

  const send: AtlasClient["fetch"] = async (path, init) => {
    const failures: string[] = [];
    const token = currentOf(options.token);
    const tlsCa = currentOf(options.tlsCa);
    let answered = false;
    for (let turn = 0; turn < options.urls.length; turn += 1) {
      const index = (preferred + turn) % options.urls.length;
      const base = options.urls[index];
      if (base === undefined) continue;
      try {
        const response = await fetch(new URL(path, base), {
          method: init.method ?? "GET",
          headers: {
            accept: "application/json",
            ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
            ...init.headers,
          },
          ...(init.body === undefined ? {} : { body: init.body }),
          ...(tlsCa === undefined ? {} : { tls: { ca: tlsCa } }),
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
        answered ||= describeTlsFailure(error) !== undefined;
        failures.push(`${base}: ${describeFailure(error)}${plainHttp(base, error)}`);
        // a replica that swallows requests has used up the time: the next request begins with another one
        if (init.signal.aborted) {
          preferred = (index + 1) % options.urls.length;
          break;
        }
      }
    }
    throw new Fault({
      code: "unreachable",
      message: `could not reach Atlas: ${failures.join("; ")}`,
      // who speaks TLS, however wrongly, is there
      hint: answered ? undefined : "Is it running, and is --atlas (or SMARTSTACK_ATLAS) its address?",
    });
  };

  return {
    fetch: send,
    async request(path, request) {
      const method = request.method ?? "GET";
      const timeout = AbortSignal.timeout(request.timeoutMs ?? 10_000);
      const response = await send(path, {
        method,
        headers: { ...(request.body === undefined ? {} : { "content-type": "application/json" }), ...request.headers },
        ...(request.body === undefined ? {} : { body: JSON.stringify(request.body) }),
        signal: request.signal === undefined ? timeout : AbortSignal.any([timeout, request.signal]),
      });
      return readAnswer(response, request.schema, `${method} ${path}`, (...refusal) => new AtlasProblem(...refusal));
    },
  };
}

/** A server with TLS drops who speaks without; nothing tells that from any other broken connection. */
function plainHttp(base: string, error: unknown): string {
  const broken = ["ECONNRESET", "ConnectionClosed"].includes(errorCode(error) ?? "");
  return broken && base.startsWith("http:") ? "; if it speaks TLS, its address begins with https://" : "";
}
