// A response in the caller's hands. He may read it, hand it on to a runtime that reads it by itself, or forget it; so what
// is handed over is a response of our own, whose body is either here already or watched to its end.
import type { Flight } from "./flight.ts";
import { BodyProblem, declaredLength } from "./reading.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** What a body that is still coming needs. */
export type Handover = {
  readonly flight: Flight;
  /** Bytes. */
  readonly limit: number;
  /** What reading failed with, in the words of the call. */
  readonly translate: (error: unknown) => unknown;
};

/** A body of known length up to this many bytes is read before its response is handed over. */
const WHOLE_UP_TO = 1024 * 1024;

/**
 * The response for the caller. A small body is read now: within the attempt, so that it is retried like any other. A large
 * one, or one of unknown length, comes as it comes, with the deadline still on it: when it ends or is cancelled, the flight
 * ends; when the time is over first, reading fails with a SmartClientError and the socket closes.
 * @param keep called when the flight goes on
 * @throws what reading a small body throws
 */
export function handOver(response: Response, limit: number, keep: () => Handover): Response | Promise<Response> {
  const length = declaredLength(response);
  if (length === 0 || NO_BODY.has(response.status)) return response;
  if (length !== undefined && length <= WHOLE_UP_TO && length <= limit) return whole(response);
  // only now: making the stream of a body that nobody streams can be measured
  const { body } = response;
  return body === null ? response : streamed(response, watched(body, keep()));
}

const NO_BODY = new Set([204, 205, 304]);

async function whole(response: Response): Promise<Response> {
  return withUrl(new Response(await response.arrayBuffer(), response), response.url);
}

function streamed(response: Response, body: ReadableStream<Bytes>): Response {
  const { status, statusText } = response;
  const headers = new Headers(response.headers);
  if (headers.has("content-encoding")) {
    // fetch has decoded it, and who hands the response on must not say otherwise
    headers.delete("content-encoding");
    headers.delete("content-length");
  }
  return withUrl(new Response(body, { status, statusText, headers }), response.url);
}

/** A made response has no URL of its own. */
function withUrl(response: Response, url: string): Response {
  return Object.defineProperty(response, "url", { value: url });
}

/** The same bytes, with the deadline on them. */
function watched(native: ReadableStream<Bytes>, { flight, limit, translate }: Handover): ReadableStream<Bytes> {
  const reader = native.getReader();
  let size = 0;
  return new ReadableStream<Bytes>(
    {
      async pull(controller) {
        try {
          const { done, value } = await reader.read();
          if (done) {
            flight.end();
            controller.close();
            return;
          }
          size += value.byteLength;
          if (size > limit) throw new BodyProblem("response_too_large", `a body longer than ${limit} bytes`);
          controller.enqueue(value);
        } catch (error) {
          controller.error(translate(error));
          flight.stop("aborted");
        }
      },
      async cancel(reason) {
        flight.end();
        await reader.cancel(reason);
      },
    },
    // read when asked, not before
    { highWaterMark: 0 },
  );
}
