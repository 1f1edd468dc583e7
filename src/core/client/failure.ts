// What a failed attempt was, in words and in facts.
import { parseJson } from "../lib/json.ts";
import { describeError } from "../lib/errors.ts";
import { type Call, describeCall } from "./call.ts";
import { addressVariable } from "./core.ts";
import { type Attempt, type ErrorKind, type ErrorResponse, type Sent, SmartClientError } from "./error.ts";
import type { Stop } from "./flight.ts";
import { BodyProblem } from "./reading.ts";
import { parseRetryAfter } from "./retry.ts";
import { lossOf } from "./transport.ts";

export type Failure = {
  readonly kind: ErrorKind;
  readonly sent: Sent;
  /** What happened, to follow "GET service://identity/teams ". */
  readonly what: string;
  /** False for what another attempt would only meet again. */
  readonly transient: boolean;
  readonly hint?: string | undefined;
  readonly cause?: unknown;
  readonly code?: string | undefined;
  readonly status?: number;
  readonly response?: ErrorResponse;
  /** What the service asked for by Retry-After. */
  readonly retryAfterMs?: number | undefined;
  /** The host's HAProxy is not there: that is between us and it, not the service's doing. */
  readonly routerRefused?: true;
};

/** The router's base URL, for messages. */
function routerOf(call: Call): string {
  return new URL(call.target.url).origin;
}

/** From whatever was thrown while sending or reading. @param answered headers had arrived */
export function failureOf(call: Call, stopped: Stop | undefined, error: unknown, answered: boolean): Failure {
  const sent: Sent = answered ? "yes" : "maybe";
  if (stopped !== undefined) return stopFailure(call, stopped, sent);
  if (error instanceof BodyProblem)
    return { kind: error.kind, sent: "yes", what: `answered ${error.message}`, transient: false, cause: error.cause };
  if (answered && error instanceof SyntaxError)
    return { kind: "bad_answer", sent, what: `answered JSON with a mistake in it: ${error.message}`, transient: false };
  const loss = lossOf(error);
  if (answered) {
    const what = `lost the connection while the answer came${loss.code === undefined ? "" : ` (${loss.code})`}`;
    return { kind: "connection", sent: "yes", what, transient: true, code: loss.code, cause: error };
  }
  if (loss.kind === "connection") {
    const what = loss.code === undefined ? `failed: ${describeError(error)}` : `lost the connection (${loss.code})`;
    return { kind: "connection", sent, what, transient: true, code: loss.code, cause: error };
  }
  // the runtime's sentence about it says no more than the code
  const cause = loss.code === undefined ? error : undefined;
  const common = { kind: "connect", sent: "no", transient: loss.transient, code: loss.code, cause } as const;
  const { service, via } = call.target;
  if (via === "router" && loss.refused) {
    return {
      ...common,
      kind: "router_unreachable",
      routerRefused: true,
      what: `found nobody at the router ${routerOf(call)}`,
      hint: `Start "smartstack dev" or "smartstack sidecar", set SMARTSTACK_ROUTER, or, in the realm local, give the service's own address in ${addressVariable(service)}.`,
    };
  }
  return {
    ...common,
    what: `could not connect to ${routerOf(call)} (${loss.code ?? describeError(error)})`,
    hint:
      via === "address" ? `Is ${service} running there? The address is from ${addressVariable(service)}.` : undefined,
  };
}

function stopFailure(call: Call, stopped: Stop, sent: Sent): Failure {
  switch (stopped) {
    case "attempt_timeout":
      return { kind: "timeout", sent, what: `got no answer in ${call.settings.attemptTimeout} ms`, transient: true };
    case "call_timeout":
      return { kind: "timeout", sent, what: timedOut(call), transient: false };
    case "aborted":
    case "hedge_lost":
      return { kind: "aborted", sent, what: "was aborted", transient: false, cause: call.signal?.reason };
  }
}

export function timedOut(call: Call): string {
  const ms = Math.round(call.deadlineAt - call.startedAt);
  return call.inherited ? `had no time left: the inbound request allowed ${ms} ms more` : `timed out after ${ms} ms`;
}

/** From an answer of 400 or more. */
export function statusFailure(call: Call, response: Response, body: string | undefined, now: number): Failure {
  const { status, headers } = response;
  const common = {
    transient: true,
    status,
    response: { status, headers, body },
    retryAfterMs: parseRetryAfter(headers.get("retry-after"), now),
  };
  // an answer of HAProxy's own: it knew nowhere to send it. From anyone but the router the header means nothing
  if (call.target.via === "router" && headers.get("smartstack-reply") === "proxy") {
    const { service } = call.target;
    return status === 404
      ? { ...common, kind: "unknown_service", sent: "no", what: `went nowhere: no service "${service}" is registered` }
      : { ...common, kind: "no_instance", sent: "no", what: `went nowhere: "${service}" has no usable instance` };
  }
  const detail = detailOf(headers, body);
  return { ...common, kind: "status", sent: "yes", what: `answered ${status}${detail === "" ? "" : `: ${detail}`}` };
}

/** What a problem document says, on one line. */
function detailOf(headers: Headers, body: string | undefined): string {
  if (body === undefined || headers.get("content-type")?.startsWith("application/problem+json") !== true) return "";
  const problem = parseJson(body);
  if (typeof problem !== "object" || problem === null) return "";
  const { detail, title } = problem as { detail?: unknown; title?: unknown };
  const text = typeof detail === "string" ? detail : typeof title === "string" ? title : "";
  return text.replaceAll(/\s+/g, " ").slice(0, 200);
}

/** The error of a call that ends with this failure. @param because why it was not tried again, when that needs saying */
export function errorOf(
  call: Call,
  failure: Failure,
  attempts: readonly Attempt[],
  because?: string,
): SmartClientError {
  const tries = attempts.at(-1)?.number ?? 0;
  const notes = [tries > 1 ? `${tries} attempts` : undefined, because].filter((note) => note !== undefined);
  return new SmartClientError({
    kind: failure.kind,
    service: call.target.service,
    // one attempt that may have arrived is enough for the whole call
    sent: worst(failure.sent, attempts),
    message: `${describeCall(call)} ${failure.what}${notes.length === 0 ? "" : ` (${notes.join(", ")})`}`,
    attempts,
    hint: failure.hint,
    cause: failure.cause,
    response: failure.response,
  });
}

function worst(sent: Sent, attempts: readonly Attempt[]): Sent {
  const all = new Set([sent, ...attempts.map((attempt) => attempt.sent)]);
  return all.has("yes") ? "yes" : all.has("maybe") ? "maybe" : "no";
}
