import { EventSourceParserStream } from "eventsource-parser/stream";

/** One server-sent event; `data` is the text of its data lines. */
export type SseEvent = { readonly id?: string | undefined; readonly event: string; readonly data: string };

/** The wire form of one event whose data is JSON (which has no raw line breaks, so one data line is enough). */
export function formatSse(event: { id?: string; event: string; data: unknown }): string {
  const id = event.id === undefined ? "" : `id: ${event.id}\n`;
  return `${id}event: ${event.event}\ndata: ${JSON.stringify(event.data)}\n\n`;
}

/** Reads the events of a response body as they come. Ends when the body ends; throws what the body throws. */
export async function* readSse(body: ReadableStream<Uint8Array>): AsyncGenerator<SseEvent> {
  const events = body
    .pipeThrough(new TextDecoderStream() as unknown as TransformStream<Uint8Array, string>)
    .pipeThrough(new EventSourceParserStream());
  for await (const message of events) yield { id: message.id, event: message.event ?? "message", data: message.data };
}
