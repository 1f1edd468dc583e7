// A response in the caller's hands, with the deadline still on its body.
import type { Flight } from "./flight.ts";
import { BodyProblem, nativeBody, readBytes, readText } from "./reading.ts";

type Bytes = Uint8Array<ArrayBuffer>;

export type Handover = {
  readonly flight: Flight;
  readonly limit: number;
  /** What reading failed with, in the words of the call. */
  readonly translate: (error: unknown) => unknown;
};

const handovers = new WeakMap<Response, Handover>();
const streams = new WeakMap<Response, ReadableStream<Bytes>>();

/**
 * Gives the response to the caller. When its body comes to its end, or is cancelled, the flight ends; when the time is over
 * first, reading fails with a SmartClientError and the socket closes.
 */
export function handOver(response: Response, handover: Handover): Response {
  if (nativeBody(response) === null || response.headers.get("content-length") === "0") {
    handover.flight.end();
    return response;
  }
  handovers.set(response, handover);
  // a new Response would be a copy over a piped stream; another prototype keeps the runtime's own, fast readers
  return Object.setPrototypeOf(response, handedOver) as Response;
}

// not a class: `fetch` has made the object already
const handedOver: object = Object.create(
  Response.prototype,
  Object.getOwnPropertyDescriptors({
    text(this: Response): Promise<string> {
      const { limit } = handoverOf(this);
      return finish(this, readText(this, limit));
    },
    json(this: Response): Promise<unknown> {
      return this.text().then((text): unknown => JSON.parse(text));
    },
    bytes(this: Response): Promise<Bytes> {
      const { limit } = handoverOf(this);
      return finish(this, readBytes(this, limit));
    },
    arrayBuffer(this: Response): Promise<ArrayBuffer> {
      const { limit } = handoverOf(this);
      return finish(this, readBytes(this, limit)).then(({ buffer }) => buffer);
    },
    blob(this: Response): Promise<Blob> {
      return finish(this, Response.prototype.blob.call(this));
    },
    formData(this: Response): ReturnType<Response["formData"]> {
      return finish(this, Response.prototype.formData.call(this));
    },
  }),
);

Object.defineProperty(handedOver, "body", {
  get(this: Response) {
    const native = nativeBody(this);
    if (native === null) return native;
    let stream = streams.get(this);
    if (stream === undefined) {
      stream = watched(native, handoverOf(this));
      streams.set(this, stream);
    }
    return stream;
  },
});

function handoverOf(response: Response): Handover {
  const handover = handovers.get(response);
  if (handover === undefined) throw new TypeError("not a response of the smart client");
  return handover;
}

/** The body was read, or could not be: either way the flight is over. */
async function finish<T>(response: Response, reading: Promise<T>): Promise<T> {
  const { flight, translate } = handoverOf(response);
  try {
    return await reading;
  } catch (error) {
    throw translate(error);
  } finally {
    flight.end();
  }
}

/** The same bytes; locks the original only when it is read, so that `if (response.body)` spoils nothing. */
function watched(native: ReadableStream<Bytes>, { flight, limit, translate }: Handover): ReadableStream<Bytes> {
  const open = () => native.getReader();
  let reader: ReturnType<typeof open> | undefined;
  let size = 0;
  return new ReadableStream<Bytes>(
    {
      async pull(controller) {
        reader ??= open();
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
        await (reader ?? native).cancel(reason);
      },
    },
    { highWaterMark: 0 },
  );
}
