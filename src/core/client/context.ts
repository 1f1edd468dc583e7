// What a request that is being served hands on to the requests that it causes: its deadline, its trace, its id. The smart
// service enters a context for each inbound request; every call made inside it finds it here.
import { AsyncLocalStorage } from "node:async_hooks";
import { randomBytes } from "node:crypto";

export type InboundContext = {
  /** When the caller gives up, in ms since the epoch. */
  readonly deadlineAt?: number | undefined;
  /** W3C trace context, as it came. */
  readonly traceparent?: string | undefined;
  readonly tracestate?: string | undefined;
  readonly requestId?: string | undefined;
};

const storage = new AsyncLocalStorage<InboundContext>();

/** Runs `serve` so that every call of the smart client made in it carries `context` on. */
export function runInContext<T>(context: InboundContext, serve: () => T): T {
  return storage.run(context, serve);
}

/** The context of the request that is being served here, if any. */
export function currentContext(): InboundContext | undefined {
  return storage.getStore();
}

const TIMEOUT_HEADER = "smartstack-timeout-ms";
// version 00 has this form and no other: W3C Trace Context, section 3.2; all-zero ids are invalid
const TRACEPARENT = /^[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;
const REQUEST_ID = /^[A-Za-z0-9._:/+=-]{1,128}$/;

/** The context in an inbound request's headers. What is malformed counts as absent. @param now ms since the epoch */
export function contextOf(headers: Headers, now: number): InboundContext {
  const timeout = headers.get(TIMEOUT_HEADER);
  const traceparent = headers.get("traceparent");
  const traced = traceparent !== null && TRACEPARENT.test(traceparent) && !traceparent.startsWith("ff");
  const requestId = headers.get("x-request-id");
  return {
    deadlineAt: timeout !== null && /^\d{1,10}$/.test(timeout) ? now + Number(timeout) : undefined,
    traceparent: traced ? traceparent : undefined,
    tracestate: traced ? (headers.get("tracestate") ?? undefined) : undefined,
    requestId: requestId !== null && REQUEST_ID.test(requestId) ? requestId : undefined,
  };
}

// random bytes as hex, made many at once: a system call for each would cost more than the rest of the header
const POOL_BYTES = 4096;
let pool = "";
let taken = 0;

/** @param digits an even number */
export function randomHex(digits: number): string {
  if (taken + digits > pool.length) {
    pool = randomBytes(POOL_BYTES).toString("hex");
    taken = 0;
  }
  taken += digits;
  return pool.slice(taken - digits, taken);
}

/** A new span in the caller's trace, or in a new one: each attempt is a span of its own. */
export function childTraceparent(parent: string | undefined): string {
  if (parent === undefined) return `00-${randomHex(32)}-${randomHex(16)}-01`;
  return `${parent.slice(0, 36)}${randomHex(16)}${parent.slice(52)}`;
}
