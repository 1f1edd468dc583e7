import { describeError } from "../lib/errors.ts";
import { invalidRequest } from "./error.ts";

export type Body = string | ArrayBuffer | Uint8Array | Blob | FormData | URLSearchParams | ReadableStream<Uint8Array>;

/** What is sent, and whether it could be sent again. */
export type Payload = {
  readonly body: Body | undefined;
  /** Set when the caller gave none. */
  readonly contentType: string | undefined;
  readonly replayable: boolean;
};

const NONE: Payload = { body: undefined, contentType: undefined, replayable: true };

/** @throws SmartClientError `invalid_request` when there is both, or JSON that cannot be written */
export function payloadOf(
  method: string,
  options: { readonly json?: unknown; readonly body?: Body | undefined } | undefined,
  service: string,
): Payload {
  if (options === undefined) return NONE;
  const { json, body } = options;
  if (json === undefined && body === undefined) return NONE;
  if (method === "GET" || method === "HEAD") throw invalidRequest(`${method} takes no body`, service);
  if (json === undefined) return { body, contentType: undefined, replayable: !(body instanceof ReadableStream) };
  if (body !== undefined) throw invalidRequest("give either json or body, not both", service);
  return { body: stringify(json, service), contentType: "application/json", replayable: true };
}

function stringify(json: unknown, service: string): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(json);
  } catch (error) {
    throw invalidRequest(`the body cannot be written as JSON: ${describeError(error)}`, service, error);
  }
  if (text === undefined) throw invalidRequest(`the body cannot be written as JSON: it is a ${typeof json}`, service);
  return text;
}
