import { expect, test } from "bun:test";
import { formatSse, readSse, type SseEvent } from "./sse.ts";

function bodyOf(chunks: readonly Uint8Array[], onCancel?: () => void): ReadableStream<Uint8Array> {
  let next = 0;
  return new ReadableStream({
    pull(controller) {
      const chunk = chunks[next];
      next += 1;
      if (chunk === undefined) controller.close();
      else controller.enqueue(chunk);
    },
    ...(onCancel === undefined ? {} : { cancel: onCancel }),
  });
}

async function readAll(body: ReadableStream<Uint8Array>): Promise<SseEvent[]> {
  const events: SseEvent[] = [];
  for await (const event of readSse(body)) events.push(event);
  return events;
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

test("what is written is read, whatever the text and wherever the network cuts it", async () => {
  const data = { text: "ä\n\r\n\u2028 : data:\u0000😀", list: [1, null] };
  const wire = bytes(formatSse({ id: "17.3", event: "delta", data }) + formatSse({ event: "heartbeat", data: {} }));
  for (const size of [1, 2, 3, 7, wire.length]) {
    const chunks = Array.from({ length: Math.ceil(wire.length / size) }, (_, index) =>
      wire.slice(index * size, (index + 1) * size),
    );
    const events = await readAll(bodyOf(chunks));
    expect(events.map(({ id, event, data }) => [id, event, JSON.parse(data)])).toEqual([
      ["17.3", "delta", data],
      [undefined, "heartbeat", {}],
    ]);
  }
});

test("comments and a half event at the end are no events", async () => {
  const events = await readAll(bodyOf([bytes(": hello\n\nevent: a\ndata: 1\n\nevent: b\ndata: 2")]));
  expect(events).toEqual([{ id: undefined, event: "a", data: "1" }]);
});

test("an event without a name is a message", async () => {
  expect(await readAll(bodyOf([bytes("data: 1\n\n")]))).toEqual([{ id: undefined, event: "message", data: "1" }]);
});

test("a megabyte in one event is one event", async () => {
  const data = "x".repeat(1_000_000);
  const wire = bytes(formatSse({ event: "snapshot", data }));
  const events = await readAll(bodyOf([wire.slice(0, 65_536), wire.slice(65_536)]));
  expect(events.map((event) => JSON.parse(event.data) as string)).toEqual([data]);
});

test("a reader that stops early cancels the body, so that the connection closes", async () => {
  const cancelled = Promise.withResolvers<string>();
  const endless = new ReadableStream<Uint8Array>({
    pull: (controller) => controller.enqueue(bytes("data: 1\n\n")),
    cancel: () => cancelled.resolve("cancelled"),
  });
  for await (const event of readSse(endless)) {
    expect(event.data).toBe("1");
    break;
  }
  expect(await cancelled.promise).toBe("cancelled");
});

test("what the body throws, the reader throws", async () => {
  const broken = new ReadableStream<Uint8Array>({
    pull(controller) {
      controller.error(new Error("connection lost"));
    },
  });
  const failure = await readAll(broken).catch((error: unknown) => error);
  expect(failure).toMatchObject({ message: "connection lost" });
});
