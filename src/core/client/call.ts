// One call as it will be sent, checked and complete: whatever is wrong with it is said before anything leaves.
import { randomUUID } from "node:crypto";
import { type Body, payloadOf } from "./body.ts";
import { childTraceparent, currentContext, type InboundContext, randomHex } from "./context.ts";
import type { Core } from "./core.ts";
import { invalidRequest } from "./error.ts";
import { type HeaderMap, mergeHeaders } from "./header.ts";
import { type CallOptions, NO_HEADERS, type Settings, settingsOf } from "./options.ts";
import type { ServiceState } from "./service-state.ts";
import { type Target, targetOf } from "./target.ts";

/** What a call may be aimed with. */
export type Input = string | URL | Request;

export type Call = {
  readonly method: string;
  readonly target: Target;
  readonly settings: Settings;
  /** The headers of every attempt; see `attemptHeaders` for what each adds. */
  readonly headers: HeaderMap;
  /** The caller gave a traceparent himself. */
  readonly traced: boolean;
  readonly body: Body | undefined;
  readonly replayable: boolean;
  /** An idempotency key goes with it. */
  readonly keyed: boolean;
  readonly signal: AbortSignal | undefined;
  readonly context: InboundContext | undefined;
  readonly state: ServiceState;
  readonly startedAt: number;
  /** Ms since the epoch; Infinity for none. */
  readonly deadlineAt: number;
  /** The deadline is the inbound request's, not the call's own. */
  readonly inherited: boolean;
};

const METHODS = new Set(["GET", "HEAD", "PUT", "DELETE", "POST", "PATCH"]);
const METHOD = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const IDEMPOTENCY_KEY = "idempotency-key";

/** What a client gives to each of its calls. */
export type Base = {
  readonly core: Core;
  readonly settings: Settings;
  /** What a relative input is relative to: `service://identity`. */
  readonly prefix: string | undefined;
  /** Where an input without further options leads. @throws SmartClientError `invalid_request` */
  readonly aim: (input: string) => Target;
};

/**
 * Checks a call and completes it. Only a Request makes it wait: its body is read here, so that it can be sent more than once.
 * @throws SmartClientError `invalid_request`
 */
export function prepare(
  base: Base,
  method: string | undefined,
  input: Input,
  options: CallOptions | undefined,
): Call | Promise<Call> {
  if (input instanceof Request) return prepareRequest(base, method, input, options);
  return prepareUrl(base, method ?? "GET", typeof input === "string" ? input : input.href, options);
}

async function prepareRequest(
  base: Base,
  method: string | undefined,
  request: Request,
  options: CallOptions | undefined,
): Promise<Call> {
  const body = request.body === null ? undefined : new Uint8Array(await request.arrayBuffer());
  return prepareUrl(base, method ?? request.method, request.url, {
    ...(body === undefined ? {} : { body }),
    signal: request.signal,
    ...options,
    headers: mergeHeaders(mergeHeaders({}, request.headers), options?.headers),
  });
}

/** @throws SmartClientError `invalid_request` */
function methodOf(name: string): string {
  if (METHODS.has(name)) return name;
  if (!METHOD.test(name)) throw invalidRequest(`${JSON.stringify(name)} is not a method`);
  return name.toUpperCase();
}

function prepareUrl(base: Base, methodName: string, url: string, options: CallOptions | undefined): Call {
  const { core } = base;
  const method = methodOf(methodName);
  const settings = settingsOf(base.settings, options);
  const target =
    options?.query === undefined && options?.router === undefined
      ? base.aim(url)
      : targetOf(url, base.prefix, options.query, settings.router ?? core.router(), core.address);
  const payload = payloadOf(method, options, target.service);
  const headers: HeaderMap = settings.headers === NO_HEADERS ? {} : { ...settings.headers };
  if (payload.contentType !== undefined) headers["content-type"] ??= payload.contentType;
  if (target.via === "router") headers["runscope-service"] = target.service;
  const key = settings.idempotencyKey;
  if (key !== false) headers[IDEMPOTENCY_KEY] ??= key === true ? randomUUID() : headerValue(key);
  const context = currentContext();
  headers["x-request-id"] ??= context?.requestId ?? randomHex(32);
  if (context?.tracestate !== undefined) headers.tracestate ??= context.tracestate;
  const startedAt = core.clock.now();
  const own = startedAt + settings.timeout;
  const inheritedAt = context?.deadlineAt ?? Number.POSITIVE_INFINITY;
  return {
    method,
    target,
    settings,
    headers,
    traced: headers.traceparent !== undefined,
    body: payload.body,
    replayable: payload.replayable,
    keyed: headers[IDEMPOTENCY_KEY] !== undefined,
    signal: options?.signal,
    context,
    state: core.state(target.service),
    startedAt,
    deadlineAt: Math.min(own, inheritedAt),
    inherited: inheritedAt < own,
  };
}

function headerValue(key: string): string {
  return mergeHeaders({}, { [IDEMPOTENCY_KEY]: key })[IDEMPOTENCY_KEY] ?? key;
}

/**
 * The headers of one attempt: a span of its own, and how long the service has for it. They are a copy only when a hook may
 * change them, since fetch takes its own at once and a copy on every request can be measured.
 */
export function attemptHeaders(call: Call, limitMs: number, accept: string | undefined): HeaderMap {
  const headers = call.settings.hooks.request === undefined ? call.headers : { ...call.headers };
  if (accept !== undefined) headers.accept ??= accept;
  if (!call.traced) headers.traceparent = childTraceparent(call.context?.traceparent);
  if (limitMs !== Number.POSITIVE_INFINITY) headers["smartstack-timeout-ms"] = String(Math.ceil(limitMs));
  return headers;
}

/** The call in a message, without its query: that may hold what should not be logged. */
export function describeCall(call: Pick<Call, "method" | "target">): string {
  const { pathname, origin } = new URL(call.target.url);
  return call.target.via === "direct"
    ? `${call.method} ${origin}${pathname}`
    : `${call.method} service://${call.target.service}${pathname}`;
}
