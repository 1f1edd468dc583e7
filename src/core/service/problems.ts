// What a handler throws to answer with something else than success, and how anything thrown becomes an RFC 9457 problem.
import { HTTPException } from "hono/http-exception";
import type { ZodError } from "zod";
import { Fault } from "../lib/errors.ts";
import { fieldErrors } from "../lib/http.ts";
import type { Logger } from "../lib/logger.ts";
import { type FieldError, problemResponse } from "../lib/problem.ts";
import type { Exchange } from "./exchange.ts";

/** What a problem may say besides its status and detail. */
export type ProblemOptions = {
  /** Stable, lower_snake_case; callers match on it. @default the usual one of the status */
  readonly code?: string;
  /** The fields of the request that are wrong. */
  readonly errors?: readonly FieldError[];
  /** Further members of the document. */
  readonly extra?: Readonly<Record<string, unknown>>;
  readonly headers?: Readonly<Record<string, string>>;
  /** For the log only, never for the caller. */
  readonly cause?: unknown;
};

/** Thrown by a handler: the request is answered with this problem. */
export class HttpProblem extends Fault {
  readonly status: number;
  readonly errors: readonly FieldError[] | undefined;
  readonly extra: Readonly<Record<string, unknown>> | undefined;
  readonly headers: Readonly<Record<string, string>> | undefined;

  constructor(status: number, detail: string, options: ProblemOptions = {}) {
    super({ code: options.code ?? usualCode(status), message: detail, cause: options.cause });
    this.name = "HttpProblem";
    this.status = status;
    this.errors = options.errors;
    this.extra = options.extra;
    this.headers = options.headers;
  }
}

const USUAL_CODES: Readonly<Record<number, string>> = {
  400: "invalid",
  401: "unauthorized",
  403: "forbidden",
  404: "not_found",
  405: "method_not_allowed",
  409: "conflict",
  410: "gone",
  412: "stale",
  413: "too_large",
  415: "wrong_type",
  422: "unprocessable",
  429: "too_many_requests",
  503: "unavailable",
  504: "timed_out",
};

function usualCode(status: number): string {
  return USUAL_CODES[status] ?? (status < 500 ? "invalid" : "internal");
}

/**
 * A problem of any status of 400 to 599: `throw problem(402, "the card was refused")`.
 * @throws RangeError for any other status
 */
export function problem(status: number, detail: string, options?: ProblemOptions): HttpProblem {
  if (!Number.isInteger(status) || status < 400 || status > 599)
    throw new RangeError(`a problem has a status of 400 to 599, not ${status}`);
  return new HttpProblem(status, detail, options);
}

const ofStatus =
  (status: number) =>
  (detail: string, options?: ProblemOptions): HttpProblem =>
    problem(status, detail, options);

/** 400: the request makes no sense. */
export const badRequest = ofStatus(400);
/** 401: the caller must say who he is. */
export const unauthorized = ofStatus(401);
/** 403: the caller may not do that. */
export const forbidden = ofStatus(403);
/** 404: there is no such thing. */
export const notFound = ofStatus(404);
/** 409: what is already there stands in the way. */
export const conflict = ofStatus(409);
/** 410: there was such a thing. */
export const gone = ofStatus(410);
/** 422: well-formed, but not acceptable. */
export const unprocessable = ofStatus(422);

/** 429: the caller asks too often. @param retryAfterSeconds sent as Retry-After. @default 1 */
export function tooManyRequests(detail: string, retryAfterSeconds = 1, options?: ProblemOptions): HttpProblem {
  return withRetryAfter(429, detail, retryAfterSeconds, options);
}

/** 503: not now; nothing was done. @param retryAfterSeconds sent as Retry-After. @default 1 */
export function unavailable(detail: string, retryAfterSeconds = 1, options?: ProblemOptions): HttpProblem {
  return withRetryAfter(503, detail, retryAfterSeconds, options);
}

function withRetryAfter(status: number, detail: string, seconds: number, options: ProblemOptions = {}): HttpProblem {
  return problem(status, detail, { ...options, headers: { "retry-after": String(seconds), ...options.headers } });
}

/** A request whose parts do not match their schemas; each field named as `body.name`, `query.limit`, `params.id`. */
export function invalidRequest(parts: readonly { readonly part: string; readonly error: ZodError }[]): HttpProblem {
  const errors = parts.flatMap(({ part, error }) =>
    fieldErrors(error).map(({ path, message }) => ({ path: path === "" ? part : `${part}.${path}`, message })),
  );
  return problem(400, errors.map(({ path, message }) => `${path}: ${message}`).join("; "), { errors });
}

/**
 * Anything a handler threw, as a response. Only what was thrown to be told is told (`HttpProblem`, hono's HTTPException);
 * all else is a bug or a failed dependency: the caller learns the request id, the log (`onBug`) the rest.
 */
function thrownResponse(error: unknown, requestId: string, onBug: (error: unknown) => void): Response {
  if (error instanceof HttpProblem) {
    const { code, status, message, errors, extra, headers } = error;
    return problemResponse({ code, status, detail: message, requestId, errors, extra, headers });
  }
  if (error instanceof HTTPException) {
    // an exception that brought its own response means it
    if (error.res !== undefined) return error.getResponse();
    if (error.status < 500)
      return problemResponse({
        code: usualCode(error.status),
        status: error.status,
        detail: error.message || usualCode(error.status).replaceAll("_", " "),
        requestId,
      });
  }
  onBug(error);
  return problemResponse({
    code: "internal",
    status: 500,
    detail: "the service failed; its log has the error under this request id",
    requestId,
  });
}

/** What was thrown on an exchange's way, as a response, and in the log when it is a bug. */
export function failedResponse(logger: Logger, exchange: Exchange, thrown: unknown): Response {
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
