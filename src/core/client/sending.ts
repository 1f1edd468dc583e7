// One request on the wire, and the redirects that it meets within its service.
import type { Body } from "./body.ts";
import type { Call } from "./call.ts";
import type { Core } from "./core.ts";
import type { Failure } from "./failure.ts";
import type { HeaderMap } from "./header.ts";
import { readErrorBody } from "./reading.ts";
import { redirectTarget } from "./target.ts";

/** Sends one request. @param fresh over a connection of its own, see `needsFreshConnection` */
export function send(
  core: Core,
  call: Call,
  url: string,
  method: string,
  headers: HeaderMap,
  body: Body | undefined,
  signal: AbortSignal,
  fresh: boolean,
): Promise<Response> {
  const init: RequestInit = { method, headers, signal, redirect: "manual" };
  if (body !== undefined) {
    init.body = body;
    // Node sends a stream only when told that it will not read the answer before
    if (body instanceof ReadableStream) Object.assign(init, { duplex: "half" });
  }
  if (fresh) init.keepalive = false;
  return (call.settings.fetch ?? core.fetch)(url, init);
}

/**
 * Follows redirects within the service, at most `settings.redirects` of them.
 * @returns the first answer that is none, or why it ended
 * @throws what fetch throws
 */
export async function followRedirects(
  core: Core,
  call: Call,
  sent: HeaderMap,
  signal: AbortSignal,
  first: Response,
): Promise<{ readonly response: Response; readonly failure?: Failure }> {
  const { redirects } = call.settings;
  const headers = { ...sent };
  let { target, method, body } = call;
  let response = first;
  for (let hop = 0; ; hop += 1) {
    const location = isRedirect(response.status) ? response.headers.get("location") : null;
    if (location === null || redirects === 0) return { response };
    await readErrorBody(response);
    const next = redirectTarget(target, location);
    if (next === undefined) return refuse(response, `was redirected out of the service, to ${withoutQuery(location)}`);
    if (hop >= redirects) return refuse(response, `was redirected more than ${redirects} times`);
    target = next;
    if (method !== "HEAD" && (response.status === 303 || (response.status < 303 && method === "POST"))) {
      // as browsers do, and RFC 9110, section 15.4, allows
      method = "GET";
      body = undefined;
      delete headers["content-type"];
    } else if (body !== undefined && !call.replayable) {
      return refuse(response, "was asked by a redirect to send its stream again");
    }
    response = await send(core, call, target.url, method, headers, body, signal, true);
  }
}

export function isRedirect(status: number): boolean {
  return status === 301 || status === 302 || status === 303 || status === 307 || status === 308;
}

function refuse(response: Response, what: string): { response: Response; failure: Failure } {
  return { response, failure: { kind: "redirect", sent: "yes", what, transient: false } };
}

function withoutQuery(location: string): string {
  return location.replace(/[?#].*$/, "").slice(0, 200);
}

/** A connection lost this recently makes the next ones fresh, in ms. */
const DISTRUST_MS = 5_000;
const REPLAYED_BY_BUN = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"]);

/**
 * Bun sends GET, HEAD, OPTIONS, PUT and DELETE once more by itself, without a word, when a kept-alive connection dies
 * before the headers came; `keepalive: false` stops it (measured on 1.4.5; POST and PATCH are never replayed). A first
 * attempt may use such a connection, at a third of the cost, while this service loses none; where the replay would break
 * a count (no retry wanted, a retry already, connections being lost), the connection is a fresh one.
 */
export function needsFreshConnection(call: Call, number: number, now: number): boolean {
  if (!REPLAYED_BY_BUN.has(call.method)) return false;
  const { attempts, methods } = call.settings.retry;
  const repeatable = attempts > 1 && (call.keyed || methods.includes(call.method));
  return !repeatable || number > 1 || now - call.state.lostAt < DISTRUST_MS;
}
