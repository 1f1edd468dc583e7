// The decision table of retries, pure: what failed, what it was, and whether another attempt is safe and worth it.
import type { BudgetOptions } from "./budget.ts";
import type { ErrorKind, Sent } from "./error.ts";

export type RetryOptions = {
  /** Attempts in all, the first included. @default 3 */
  readonly attempts: number;
  /** Methods that may be repeated although the service may have acted. @default GET HEAD OPTIONS PUT DELETE */
  readonly methods: readonly string[];
  /** Statuses that mean "not now". @default 429 502 503 504 */
  readonly statuses: readonly number[];
  /** Upper bound of the first wait, in ms. @default 50 */
  readonly baseMs: number;
  /** No wait is longer than this, in ms, unless the service asked for more. @default 1000 */
  readonly capMs: number;
  /** How many retries the service may get in all. @default 10 % of the requests of the last 10 s, and 10 */
  readonly budget: BudgetOptions;
};

/** What the decision rests on. */
export type Failed = {
  readonly kind: ErrorKind;
  readonly sent: Sent;
  readonly status?: number | undefined;
  /** False for what another attempt would only meet again: a certificate that is not trusted. */
  readonly transient: boolean;
};

export type Repeatable = {
  readonly method: string;
  /** An idempotency key goes with it, so the service itself refuses to act twice. */
  readonly keyed: boolean;
  /** The body can be sent again: a stream cannot. */
  readonly replayable: boolean;
};

/**
 * May this request be sent again after this failure? POST and PATCH only when it provably never arrived, or with an
 * idempotency key; others also when it is unknown whether the service acted.
 */
export function mayRetry(failure: Failed, request: Repeatable, options: RetryOptions): boolean {
  if (!failure.transient || !request.replayable) return false;
  const safe = request.keyed || options.methods.includes(request.method);
  switch (failure.kind) {
    case "connect":
    case "router_unreachable":
    case "unknown_service":
    case "no_instance":
      return safe || failure.sent === "no";
    case "connection":
    case "timeout":
      return safe;
    case "status":
      return safe && failure.status !== undefined && options.statuses.includes(failure.status);
    case "invalid_request":
    case "hook_failed":
    case "aborted":
    case "circuit_open":
    case "bulkhead_full":
    case "redirect":
    case "response_too_large":
    case "bad_answer":
      return false;
  }
}

/**
 * `Retry-After` in either form, seconds or an HTTP date, as ms from `now`. Undefined when it is neither, never negative.
 * Source: RFC 9110, section 10.2.3.
 */
export function parseRetryAfter(value: string | null, now: number): number | undefined {
  if (value === null) return undefined;
  const text = value.trim();
  if (/^\d+$/.test(text)) return Number(text) * 1000;
  // Date.parse takes almost anything; an HTTP date begins with the day's name
  if (!/^(Mon|Tue|Wed|Thu|Fri|Sat|Sun)/.test(text)) return undefined;
  const at = Date.parse(text);
  return Number.isNaN(at) ? undefined : Math.max(0, at - now);
}
