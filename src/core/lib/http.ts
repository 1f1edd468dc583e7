// What every HTTP server of ours does alike: request ids, and errors as problem documents.
import { ZodError } from "zod";
import { describeError, Fault } from "./errors.ts";
import { type FieldError, PROBLEM_STATUS, type ProblemCode, problemResponse } from "./problem.ts";

const REQUEST_ID = /^[A-Za-z0-9._:/+=-]{1,128}$/;

/** The caller's X-Request-Id when it is harmless to log, else a new one. */
export function requestIdOf(headers: Headers): string {
  const given = headers.get("x-request-id");
  return given !== null && REQUEST_ID.test(given) ? given : crypto.randomUUID();
}

const SCHEME_END = "https://".length;
/** The last origin that could be parsed. */
let sound: string | undefined;

/**
 * The request with a URL that can be parsed. Bun takes it from the Host header: HTTP/1.0 without one (as health checks speak)
 * leaves the path alone, and nonsense in it makes nonsense of the URL.
 */
export function withUrl(request: Request): Request {
  const { url } = request;
  // what can be wrong is the origin, and callers name few of them: reading it again for each request can be measured
  const origin = url.slice(0, url.indexOf("/", SCHEME_END));
  if (origin === sound) return request;
  if (URL.canParse(url)) {
    sound = origin;
    return request;
  }
  return new Request(`http://localhost${request.url.replace(/^https?:\/\/[^/]*/, "")}`, request);
}

/** zod's issues as the `errors` of a problem. */
export function fieldErrors(error: ZodError): readonly FieldError[] {
  return error.issues.flatMap((issue) =>
    issue.code === "unrecognized_keys"
      ? issue.keys.map((key) => ({ path: [...issue.path, key].join("."), message: "is not a known field" }))
      : [{ path: issue.path.join("."), message: issue.message }],
  );
}

/** A Fault that HTTP handlers throw to answer with a problem of that code. */
export class ProblemFault extends Fault {
  readonly problem: ProblemCode;
  readonly extra: Readonly<Record<string, unknown>> | undefined;
  readonly headers: Readonly<Record<string, string>> | undefined;

  constructor(
    problem: ProblemCode,
    message: string,
    more: {
      extra?: Readonly<Record<string, unknown>>;
      headers?: Readonly<Record<string, string>>;
      cause?: unknown;
    } = {},
  ) {
    super({ code: problem, message, cause: more.cause });
    this.problem = problem;
    this.extra = more.extra;
    this.headers = more.headers;
  }
}

/**
 * Anything thrown by a handler, as a response. A Fault whose code is one of PROBLEM_STATUS keeps it; a ZodError is
 * `invalid`; everything else is our bug: `internal`, its message for the log only (`onBug`), never for the caller.
 */
export function problemOf(error: unknown, requestId: string, onBug: (error: unknown) => void): Response {
  if (error instanceof ZodError) {
    const errors = fieldErrors(error);
    const detail = errors.map(({ path, message }) => (path === "" ? message : `${path}: ${message}`)).join("; ");
    return problemResponse({ code: "invalid", status: 400, detail, requestId, errors });
  }
  if (error instanceof Fault && Object.hasOwn(PROBLEM_STATUS, error.code)) {
    const detail = error.hint === undefined ? describeError(error) : `${describeError(error)}. ${error.hint}`;
    const { extra, headers } = error instanceof ProblemFault ? error : { extra: undefined, headers: undefined };
    return problemResponse({
      code: error.code,
      status: PROBLEM_STATUS[error.code as ProblemCode],
      detail,
      requestId,
      extra,
      headers,
    });
  }
  onBug(error);
  return problemResponse({
    code: "internal",
    status: 500,
    detail: "an error of ours; the log has it under this request id",
    requestId,
  });
}
