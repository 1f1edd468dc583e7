// One call as it will be sent, checked and complete: whatever is wrong with it is said before anything leaves.
import { type Body, payloadOf } from "./body.ts";
import { childTraceparent, currentContext, type InboundContext } from "./context.ts";
import type { Core } from "./core.ts";
import { invalidRequest } from "./error.ts";
import { type HeaderMap, mergeHeaders } from "./header.ts";
import type { CallOptions, Settings } from "./options.ts";
import { settingsOf } from "./options.ts";
import type { ServiceState } from "./service-state.ts";
import { type Target, targetOf } from "./target.ts";

/** What a call may be aimed with. */
export type Input = string | URL | Request;

export type Call = {
  readonly method: string;
  readonly target: Target;
  readonly settings: Settings;
  /** Without what changes between attempts. */
  readonly headers: HeaderMap;
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

const METHOD = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const IDEMPOTENCY_KEY = "idempotency-key";

/** @throws SmartClientError `invalid_request` */
export async function prepare(
  core: Core,
  base: Settings,
  prefix: string | undefined,
  methodName: string | undefined,
  input: Input,
  options: CallOptions | undefined,
): Promise<Call> {
  if (!(input instanceof Request))
    return prepareFrom(core, base, prefix, methodName ?? "GET", String(input), options ?? {});
  // a Request's body is a stream; read now, it can be sent more than once
  const body = input.body === null ? undefined : new Uint8Array(await input.arrayBuffer());
  return prepareFrom(core, base, prefix, methodName ?? input.method, input.url, {
    ...(body === undefined ? {} : { body }),
    signal: input.signal,
    ...options,
    headers: mergeHeaders(mergeHeaders({}, input.headers), options?.headers),
  });
}

function prepareFrom(
  core: Core,
  base: Settings,
  prefix: string | undefined,
  methodName: string,
  url: string,
  options: CallOptions,
): Call {
  const settings = settingsOf(base, options);
  const target = targetOf(url, prefix, options.query, core.surroundings(settings.router));
  const method = methodName.toUpperCase();
  if (!METHOD.test(method)) throw invalidRequest(`${JSON.stringify(methodName)} is not a method`, target.service);
  const payload = payloadOf(method, options, target.service);
  const headers = { ...settings.headers };
  if (payload.contentType !== undefined) headers["content-type"] ??= payload.contentType;
  if (target.via === "router") headers["runscope-service"] = target.service;
  const key = settings.idempotencyKey;
  if (key !== false) headers[IDEMPOTENCY_KEY] ??= key === true ? crypto.randomUUID() : headerValue(key);
  const context = currentContext();
  headers["x-request-id"] ??= context?.requestId ?? crypto.randomUUID();
  if (context?.tracestate !== undefined) headers.tracestate ??= context.tracestate;
  const startedAt = core.clock.now();
  const own = startedAt + settings.timeout;
  const inheritedAt = context?.deadlineAt ?? Number.POSITIVE_INFINITY;
  return {
    method,
    target,
    settings,
    headers,
    body: payload.body,
    replayable: payload.replayable,
    keyed: headers[IDEMPOTENCY_KEY] !== undefined,
    signal: options.signal,
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

/** The headers of one attempt: a span of its own, and how long the service has for it. */
export function attemptHeaders(call: Call, limitMs: number, accept: string | undefined): HeaderMap {
  const headers = { ...call.headers };
  if (accept !== undefined) headers.accept ??= accept;
  headers.traceparent ??= childTraceparent(call.context?.traceparent);
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
