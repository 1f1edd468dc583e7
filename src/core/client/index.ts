// smartstack/client: everything that callers may use.
//
// The way of a call through this folder: client → call (checked and complete; target, header, body) → exchange (its attempts and
// the waits between them) → attempt (in a flight that ends in time) → sending → answer (reading, or handover to the caller);
// failure says what went wrong. The policies know nothing of HTTP: retry, budget, breaker, bulkhead, hedge, latency, alarms.
import { createSmartClient } from "./client.ts";

export { createSmartClient } from "./client.ts";
export type { SmartClient } from "./client.ts";
export { SmartClientError } from "./error.ts";
export type { Attempt, ErrorKind, ErrorResponse, Sent } from "./error.ts";
export type { CallOptions, Fetch, SmartClientOptions } from "./options.ts";
export { contextOf, currentContext, runInContext } from "./context.ts";
export type { InboundContext } from "./context.ts";
export type { ServiceStats } from "./stats.ts";
export type { Hooks, Outgoing, Retrying } from "./hooks.ts";
export { CHANNELS } from "./events.ts";
export type { AttemptEvent, CallEvent } from "./events.ts";
export { mockServices } from "./mock.ts";
export type { MockFault, MockRequest, MockService, MockServices } from "./mock.ts";
export type { Reply, Safe, SafeResponse, SmartRequest } from "./request.ts";

/** The client of this process. It reads its environment at the first call. */
export const smartClient = createSmartClient();
