// One event stream of Atlas, to its end. A body that hangs, a stream that says nothing and one that somebody stops all end, and
// leave no connection behind.
import { z } from "zod";
import type { Cancel, Clock } from "../lib/clock.ts";
import { Fault } from "../lib/errors.ts";
import { readSse, type SseEvent } from "../lib/sse.ts";
import { type AtlasClient, AtlasProblem } from "./atlas-client.ts";
import { readProblem } from "./exchange.ts";

export type EventStreamOptions = {
  readonly client: AtlasClient;
  /** Where the client asks, for messages. */
  readonly url: string;
  readonly path: string;
  /** Of the request. @default none besides `accept` */
  readonly headers?: Readonly<Record<string, string>>;
  /** A stream that is silent for so long, in ms, is dead, whatever TCP says. */
  readonly silenceMs: number;
  readonly clock: Clock;
  /** Ends the stream. */
  readonly signal: AbortSignal;
  /** Called with every event, heartbeats too. What it throws ends the stream. */
  readonly take: (event: SseEvent) => void;
};

/**
 * @returns never by itself: it throws why the stream ended
 * @throws Fault `silent`, `unreachable`, `bad_answer`; AtlasProblem; the reason of `signal`; what `take` threw
 */
export async function followEvents(options: EventStreamOptions): Promise<never> {
  const { client, url, path, headers, silenceMs, clock, signal, take } = options;
  const connection = new AbortController();
  const onStop = (): void => connection.abort(signal.reason);
  signal.addEventListener("abort", onStop, { once: true });
  const dog = watchdog(clock, silenceMs, () =>
    connection.abort(new Fault({ code: "silent", message: `${url} said nothing for ${silenceMs / 1_000} s` })),
  );
  try {
    const response = await client.fetch(path, {
      headers: { accept: "text/event-stream", ...headers },
      signal: connection.signal,
    });
    if (!response.ok) throw new AtlasProblem(response.status, await readProblem(response), `GET ${path}`);
    if (response.body === null) throw new Fault({ code: "bad_answer", message: `${url} answered without a body` });
    let first = true;
    // a large snapshot on a slow line is alive while bytes come; afterwards only whole events count
    const body = response.body.pipeThrough(
      new TransformStream<Uint8Array, Uint8Array>({
        transform(chunk, controller) {
          if (first) dog.feed();
          controller.enqueue(chunk);
        },
      }),
    );
    for await (const event of untilAborted(readSse(body), connection.signal)) {
      dog.feed();
      take(event);
      first = false;
    }
    throw new Fault({ code: "unreachable", message: `${url} ended the stream` });
  } catch (error) {
    throw connection.signal.aborted ? connection.signal.reason : error;
  } finally {
    dog.stop();
    signal.removeEventListener("abort", onStop);
    connection.abort(new DOMException("the stream is over", "AbortError"));
  }
}

/** What an event says. @param sender for the message: `Atlas`. @throws Fault `bad_answer` */
export function parseEvent<T>(event: SseEvent, schema: z.ZodType<T>, sender: string): T {
  let data: unknown;
  try {
    data = JSON.parse(event.data);
  } catch (error) {
    throw new Fault({ code: "bad_answer", message: `a ${event.event} event of ${sender} is not JSON`, cause: error });
  }
  const parsed = schema.safeParse(data);
  if (parsed.success) return parsed.data;
  throw new Fault({
    code: "bad_answer",
    message: `a ${event.event} event of ${sender} is not as expected: ${z.prettifyError(parsed.error)}`,
  });
}

/** The items of `source` until the signal aborts, then its reason: a body that hangs must not hold the reader. */
async function* untilAborted<T>(source: AsyncGenerator<T>, signal: AbortSignal): AsyncGenerator<T> {
  for (;;) {
    const item = await new Promise<IteratorResult<T>>((resolve, reject) => {
      const onAbort = (): void => reject(signal.reason);
      signal.addEventListener("abort", onAbort, { once: true });
      source
        .next()
        .then(resolve, reject)
        .finally(() => signal.removeEventListener("abort", onAbort));
    });
    if (item.done === true) return;
    yield item.value;
  }
}

function watchdog(clock: Clock, ms: number, bite: () => void): { feed(): void; stop(): void } {
  let cancel: Cancel = clock.after(ms, bite);
  return {
    feed() {
      cancel();
      cancel = clock.after(ms, bite);
    },
    stop: () => cancel(),
  };
}
