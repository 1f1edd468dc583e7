// What a caller may say, and what the client works with: every default in one place, nothing downstream meets "maybe unset".
import type { Body } from "./body.ts";
import type { BreakerOptions } from "./breaker.ts";
import { invalidRequest } from "./error.ts";
import { type HeaderInput, type HeaderMap, mergeHeaders } from "./header.ts";
import type { HedgeOptions } from "./hedge.ts";
import { type Hooks, mergeHooks } from "./hooks.ts";
import type { RetryOptions } from "./retry.ts";
import type { Query } from "./target.ts";

/** Any `fetch`. It must obey `signal`, and not follow redirects when `redirect` is `manual`. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** Options that `extend` takes as well as a single call. */
export type SmartClientOptions = {
  /** Base URL of the host's HAProxy. @default SMARTSTACK_ROUTER, or http://127.0.0.1:4000 */
  readonly router?: string;
  /** Headers of every request; a value of undefined takes an inherited one away. */
  readonly headers?: HeaderInput;
  /** For the whole call, waits and bodies included, in ms; Infinity for none. @default 10_000 */
  readonly timeout?: number;
  /** For one attempt, its body included, in ms; Infinity for none. @default 2_000 */
  readonly attemptTimeout?: number;
  /** False: exactly one attempt. @default 3 attempts, see RetryOptions */
  readonly retry?:
    | false
    | (Partial<Omit<RetryOptions, "budget">> & { readonly budget?: Partial<RetryOptions["budget"]> });
  /** True: a new key for each call; then POST and PATCH are retried too. */
  readonly idempotencyKey?: boolean | string;
  /** False: never stops calling. @default opens at half of 20 or more attempts failed, see BreakerOptions */
  readonly circuitBreaker?: false | Partial<BreakerOptions>;
  /** Calls to one service in flight at once; ten times as many may wait. False: no bound of its own. @default 100 */
  readonly bulkhead?: number | false;
  /** GET and HEAD: when an answer is slower than nearly all, ask once more and take the first. @default false */
  readonly hedge?: boolean | Partial<HedgeOptions>;
  /** Redirects to follow within the service. @default 5 */
  readonly redirects?: number;
  /** A longer body is an error, in bytes after decompression; Infinity for no limit. @default 64 MiB */
  readonly maxResponseBytes?: number;
  /** What sends. @default the runtime's fetch */
  readonly fetch?: Fetch;
  readonly hooks?: Hooks;
};

/** Options of one call. */
export type CallOptions = SmartClientOptions & {
  /** Sent as JSON, with its content type. */
  readonly json?: unknown;
  /** Sent as it is. A stream is sent once: such a request is never retried. */
  readonly body?: Body;
  readonly query?: Query;
  /** The caller's own reason to stop. */
  readonly signal?: AbortSignal | undefined;
};

/** Options after defaults and checks. */
export type Settings = {
  readonly router: string | undefined;
  readonly headers: HeaderMap;
  readonly timeout: number;
  readonly attemptTimeout: number;
  readonly retry: RetryOptions;
  readonly idempotencyKey: boolean | string;
  readonly circuitBreaker: false | BreakerOptions;
  readonly bulkhead: number;
  readonly hedge: false | HedgeOptions;
  readonly redirects: number;
  readonly maxResponseBytes: number;
  readonly fetch: Fetch | undefined;
  readonly hooks: Hooks;
};

const RETRY: RetryOptions = {
  attempts: 3,
  methods: ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"],
  statuses: [429, 502, 503, 504],
  baseMs: 50,
  capMs: 1_000,
  budget: { ratio: 0.1, reserve: 10 },
};
const BREAKER: BreakerOptions = { threshold: 0.5, minimum: 20, openMs: 1_000, maxOpenMs: 30_000 };
const HEDGE: HedgeOptions = { percentile: 0.95, minimum: 20 };

/** Most clients have none of their own. */
export const NO_HEADERS: HeaderMap = {};

export const DEFAULTS: Settings = {
  router: undefined,
  headers: NO_HEADERS,
  timeout: 10_000,
  attemptTimeout: 2_000,
  retry: RETRY,
  idempotencyKey: false,
  circuitBreaker: BREAKER,
  bulkhead: 100,
  hedge: false,
  redirects: 5,
  maxResponseBytes: 64 * 1024 * 1024,
  fetch: undefined,
  hooks: {},
};

/**
 * `base` with `options` over it; headers are merged, and hooks of both run, the base's first.
 * @throws SmartClientError `invalid_request` that names the option
 */
export function settingsOf(base: Settings, options: SmartClientOptions | undefined): Settings {
  if (options === undefined) return base;
  const { timeout, attemptTimeout, bulkhead, redirects, maxResponseBytes, router } = options;
  check("timeout", timeout, 0);
  check("attemptTimeout", attemptTimeout, 0);
  check("maxResponseBytes", maxResponseBytes, 0);
  checkWhole("redirects", redirects, 0);
  if (bulkhead !== false) checkWhole("bulkhead", bulkhead, 1);
  if (router !== undefined && !isWebUrl(router)) throw invalidRequest(`router must be an http:// URL, not "${router}"`);
  if (typeof options.idempotencyKey === "string" && options.idempotencyKey === "")
    throw invalidRequest("idempotencyKey must not be empty");
  return {
    router: router ?? base.router,
    headers: options.headers === undefined ? base.headers : mergeHeaders(base.headers, options.headers),
    timeout: timeout ?? base.timeout,
    attemptTimeout: attemptTimeout ?? base.attemptTimeout,
    retry: options.retry === undefined ? base.retry : retryOf(base.retry, options.retry),
    idempotencyKey: options.idempotencyKey ?? base.idempotencyKey,
    circuitBreaker:
      options.circuitBreaker === undefined
        ? base.circuitBreaker
        : options.circuitBreaker && breakerOf(base.circuitBreaker || BREAKER, options.circuitBreaker),
    bulkhead: bulkhead === false ? Number.POSITIVE_INFINITY : (bulkhead ?? base.bulkhead),
    hedge: options.hedge === undefined ? base.hedge : hedgeOf(base.hedge || HEDGE, options.hedge),
    redirects: redirects ?? base.redirects,
    maxResponseBytes: maxResponseBytes ?? base.maxResponseBytes,
    fetch: options.fetch ?? base.fetch,
    hooks: options.hooks === undefined ? base.hooks : mergeHooks(base.hooks, options.hooks),
  };
}

/** Base URL of a router or a service's address. */
export function isWebUrl(text: string): boolean {
  return URL.canParse(text) && /^https?:$/.test(new URL(text).protocol);
}

function retryOf(base: RetryOptions, retry: NonNullable<SmartClientOptions["retry"]> | false): RetryOptions {
  if (retry === false) return { ...base, attempts: 1 };
  checkWhole("retry.attempts", retry.attempts, 1);
  check("retry.baseMs", retry.baseMs, 0);
  check("retry.capMs", retry.capMs, 0);
  check("retry.budget.ratio", retry.budget?.ratio, 0);
  check("retry.budget.reserve", retry.budget?.reserve, 0);
  // `retry: {…}` after `retry: false` means retries again
  const attempts = retry.attempts ?? (base.attempts === 1 ? RETRY.attempts : base.attempts);
  const methods = (retry.methods ?? base.methods).map((method) => method.toUpperCase());
  return { ...base, ...retry, attempts, methods, budget: { ...base.budget, ...retry.budget } };
}

function breakerOf(base: BreakerOptions, breaker: Partial<BreakerOptions>): BreakerOptions {
  check("circuitBreaker.threshold", breaker.threshold, 0);
  checkWhole("circuitBreaker.minimum", breaker.minimum, 1);
  check("circuitBreaker.openMs", breaker.openMs, 0);
  check("circuitBreaker.maxOpenMs", breaker.maxOpenMs, 0);
  return { ...base, ...breaker };
}

function hedgeOf(base: HedgeOptions, hedge: boolean | Partial<HedgeOptions>): false | HedgeOptions {
  if (typeof hedge === "boolean") return hedge && base;
  check("hedge.percentile", hedge.percentile, 0);
  checkWhole("hedge.minimum", hedge.minimum, 1);
  return { ...base, ...hedge };
}

function check(name: string, value: number | undefined, least: number): void {
  if (value !== undefined && !(typeof value === "number" && value >= least))
    throw invalidRequest(`${name} must be a number of ${least} or more, not ${String(value)}`);
}

function checkWhole(name: string, value: number | undefined, least: number): void {
  if (value !== undefined && !(Number.isSafeInteger(value) && value >= least))
    throw invalidRequest(`${name} must be a whole number of ${least} or more, not ${String(value)}`);
}
