// What depends on the runtime that sends: how many requests it lets fly, and what its errors mean.
import { errorCode } from "../lib/errors.ts";
import type { Sent } from "./error.ts";

/**
 * How many requests this process can have in flight, all origins together. Bun: 256, unless it was started with more in
 * BUN_CONFIG_MAX_HTTP_REQUESTS (read once, at start). Some are left to callers of the bare fetch. Node has no such limit.
 */
export function requestPlaces(environment: Readonly<Record<string, string | undefined>>): number {
  if (!("Bun" in globalThis)) return Number.POSITIVE_INFINITY;
  const configured = Number(environment.BUN_CONFIG_MAX_HTTP_REQUESTS);
  const limit = Number.isSafeInteger(configured) && configured > 0 ? Math.min(configured, 65_535) : 256;
  return Math.max(1, limit - Math.min(16, Math.ceil(limit / 16)));
}

/** What a failed fetch says. */
export type Loss = {
  readonly kind: "connect" | "connection";
  readonly sent: Sent;
  readonly code: string | undefined;
  /** Nobody listens there. */
  readonly refused: boolean;
  readonly transient: boolean;
};

// Bun before 1.4, Bun since, Node
const REFUSED = new Set(["ECONNREFUSED", "ConnectionRefused"]);
const NOT_CONNECTED = new Set([
  ...REFUSED,
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EADDRNOTAVAIL",
  "FailedToOpenSocket",
  "UND_ERR_CONNECT_TIMEOUT",
]);
const TLS = /^(ERR_TLS_|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|ERR_SSL_)/;

/** Reads the code of an error, or of what caused it; never its message, which differs between versions. */
export function lossOf(error: unknown): Loss {
  const code = codeOf(error);
  if (code !== undefined && TLS.test(code))
    return { kind: "connect", sent: "no", code, refused: false, transient: false };
  if (code !== undefined && NOT_CONNECTED.has(code))
    return { kind: "connect", sent: "no", code, refused: REFUSED.has(code), transient: true };
  return { kind: "connection", sent: "maybe", code, refused: false, transient: true };
}

function codeOf(error: unknown): string | undefined {
  const own = errorCode(error);
  if (own !== undefined) return own;
  if (error instanceof AggregateError) return codeOf(error.errors[0]);
  return error instanceof Error && error.cause !== undefined ? codeOf(error.cause) : undefined;
}
