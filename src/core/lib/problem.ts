// Errors over HTTP, one shape for Atlas, the sidecar and every smart service: RFC 9457, with our stable `code`.

/** The codes of design and docs/api.md with their statuses. */
export const PROBLEM_STATUS = {
  invalid: 400,
  unauthorized: 401,
  forbidden: 403,
  not_found: 404,
  conflict: 409,
  rejected: 409,
  stale: 412,
  too_large: 413,
  wrong_type: 415,
  internal: 500,
  unavailable: 503,
  not_applied: 504,
} as const;

export type ProblemCode = keyof typeof PROBLEM_STATUS;

/** One bad field of a request: `path` as `healthcheck.intervalMs`. */
export type FieldError = { readonly path: string; readonly message: string };

/** The body of `application/problem+json`. */
type ProblemBody = {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: string;
  readonly requestId: string;
  readonly errors?: readonly FieldError[];
};

export type ProblemInit = {
  readonly code: string;
  readonly status: number;
  readonly detail: string;
  readonly requestId: string;
  readonly errors?: readonly FieldError[] | undefined;
  /** Further members, such as `pending` of `not_applied`. */
  readonly extra?: Readonly<Record<string, unknown>> | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
};

/** An RFC 9457 response. `type` is `about:blank`, as the RFC asks when the status and `code` say everything. */
export function problemResponse(init: ProblemInit): Response {
  const body: ProblemBody & Record<string, unknown> = {
    type: "about:blank",
    title: init.code.replaceAll("_", " "),
    status: init.status,
    detail: init.detail,
    code: init.code,
    requestId: init.requestId,
    ...(init.errors === undefined ? {} : { errors: init.errors }),
    ...init.extra,
  };
  return new Response(JSON.stringify(body), {
    status: init.status,
    headers: { "content-type": "application/problem+json", "x-request-id": init.requestId, ...init.headers },
  });
}
