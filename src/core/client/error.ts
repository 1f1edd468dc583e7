import { Fault } from "../lib/errors.ts";
import { parseJson } from "../lib/json.ts";

/**
 * What went wrong, for programs to match on.
 *
 * | kind | meaning |
 * |---|---|
 * | `hook_failed` | a `request` hook threw; that attempt was not sent |
 * | `invalid_request` | a bad URL, service name, header, body or option; nothing was sent |
 * | `router_unreachable` | the host's HAProxy refused the connection, for longer than a restart of it takes |
 * | `connect` | no connection to an `http(s)://` origin or to a service's own address |
 * | `connection` | the connection was lost after sending began |
 * | `timeout` | the attempt's, the call's or the inherited time was over |
 * | `aborted` | the caller's signal |
 * | `status` | the service answered with a status of 400 or more |
 * | `unknown_service` | HAProxy does not know the service; nothing was sent |
 * | `no_instance` | HAProxy knows no usable instance of the service; nothing was sent |
 * | `circuit_open` | the service failed so often that it is left alone for a moment |
 * | `bulkhead_full` | too many calls to this service are under way and waiting |
 * | `redirect` | a redirect out of the service, or too many of them |
 * | `response_too_large` | the body is longer than `maxResponseBytes` |
 * | `bad_answer` | the body is not JSON, or not what the schema says |
 */
export type ErrorKind =
  | "invalid_request"
  | "hook_failed"
  | "router_unreachable"
  | "connect"
  | "connection"
  | "timeout"
  | "aborted"
  | "status"
  | "unknown_service"
  | "no_instance"
  | "circuit_open"
  | "bulkhead_full"
  | "redirect"
  | "response_too_large"
  | "bad_answer";

/** Whether the request reached the service: `no` is proven, `yes` means it answered, everything else is `maybe`. */
export type Sent = "no" | "maybe" | "yes";

/** One request that left, or tried to. */
export type Attempt = {
  /** 1 for the first. Connections that the router refused are outside the count and share the number that follows. */
  readonly number: number;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  /** Backoff before it, in ms. */
  readonly waitedMs: number;
  /** From the start to the end of the body, or to the failure, in ms. */
  readonly tookMs: number;
  readonly outcome: "ok" | ErrorKind;
  readonly sent: Sent;
  readonly status?: number;
  /** The instance that answered, when the answer says so. */
  readonly instance?: string;
  /** The system's word for a lost or refused connection: `ECONNRESET`. */
  readonly code?: string;
  /** It was sent beside a slow one (see `hedge`). */
  readonly hedge?: true;
  /** How often in a row this same failure came; only for connections refused by the router. */
  readonly times?: number;
};

export type SmartClientErrorInit = {
  readonly kind: ErrorKind;
  readonly message: string;
  readonly service: string;
  readonly sent: Sent;
  readonly attempts?: readonly Attempt[];
  readonly hint?: string | undefined;
  readonly cause?: unknown;
  readonly response?: ErrorResponse | undefined;
};

/** What is kept of an answer that was an error. */
export type ErrorResponse = {
  readonly status: number;
  readonly headers: Headers;
  /** The body as text, when it was at most 64 KiB and arrived in time. */
  readonly body: string | undefined;
};

// what the command line and other programs know these by; every other kind is its own code
const CODES: Partial<Record<ErrorKind, string>> = { timeout: "timed_out", router_unreachable: "unreachable" };

/** The one error of the smart client: what happened in one line, and everything a program needs to decide what to do. */
export class SmartClientError extends Fault {
  readonly kind: ErrorKind;
  /** The service's name, or the host of an `http(s)://` URL. Empty when the URL had neither. */
  readonly service: string;
  readonly sent: Sent;
  readonly attempts: readonly Attempt[];
  readonly response: ErrorResponse | undefined;

  constructor(init: SmartClientErrorInit) {
    super({ code: CODES[init.kind] ?? init.kind, message: init.message, hint: init.hint, cause: init.cause });
    this.name = "SmartClientError";
    this.kind = init.kind;
    this.service = init.service;
    this.sent = init.sent;
    this.attempts = init.attempts ?? [];
    this.response = init.response;
  }

  /** The status of the answer, when there was one. */
  get status(): number | undefined {
    return this.response?.status;
  }

  /** The body of the answer as JSON (a problem document, mostly), or undefined when it is none. */
  get problem(): unknown {
    return this.response?.body === undefined ? undefined : parseJson(this.response.body);
  }
}

/** A request that makes no sense; thrown before anything is sent. */
export function invalidRequest(message: string, service = "", cause?: unknown): SmartClientError {
  return new SmartClientError({ kind: "invalid_request", message, service, sent: "no", cause });
}
