// What the tests of Atlas over HTTP share: one Atlas for all tests of a file, and how to ask it.
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readSse, type SseEvent } from "../core/lib/sse.ts";
import { type RunningAtlas, startAtlas } from "./atlas.ts";
import { problemSchema } from "./schemas.ts";

export let directory: string;
export let atlas: RunningAtlas;
/** A service that only this test uses. */
export let service: string;
const streams: AbortController[] = [];
let count = 0;

/** Starts Atlas for the tests of the file that calls this. */
export function useAtlas(): void {
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "smartstack-atlas-"));
    atlas = await startAtlas({
      listen: { host: "127.0.0.1", port: 0 },
      realm: "local",
      store: { kind: "embedded", dataDir: directory },
    });
  });
  afterAll(async () => {
    await atlas.stop();
    await rm(directory, { recursive: true, force: true });
  });
  afterEach(() => {
    for (const stream of streams.splice(0)) stream.abort();
  });
  beforeEach(() => {
    count += 1;
    service = `service-${count}`;
  });
}

export type Answer = { readonly status: number; readonly headers: Headers; readonly body: Record<string, unknown> };

export async function ask(
  method: string,
  path: string,
  body?: unknown,
  headers: Readonly<Record<string, string>> = {},
): Promise<Answer> {
  const response = await fetch(new URL(path, atlas.url), {
    method,
    headers: { ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  return { status: response.status, headers: response.headers, body: (await response.json()) as Answer["body"] };
}

/** A problem's status, code and fields, after checking that it is one. */
export function problem({ status, headers, body }: Answer): unknown {
  expect(headers.get("content-type")).toBe("application/problem+json");
  const parsed = problemSchema.parse(body);
  expect(parsed.status).toBe(status);
  expect(headers.get("x-request-id")).toBe(parsed.requestId);
  return [status, parsed.code, ...(parsed.errors?.map(({ path }) => path) ?? [])];
}

/** Opens a watch; `next` waits for the next event of a kind. */
export async function watch(query = "", headers: Readonly<Record<string, string>> = {}) {
  const ending = new AbortController();
  streams.push(ending);
  const response = await fetch(new URL(`/v1/watch${query}`, atlas.url), { headers, signal: ending.signal });
  if (!response.ok || response.body === null) throw new Error(`watch: ${response.status} ${await response.text()}`);
  const events = readSse(response.body);
  const next = async (...kinds: string[]): Promise<SseEvent & { json: Record<string, unknown> }> => {
    for (;;) {
      const { value, done } = await events.next();
      if (done) throw new Error("the stream ended");
      if (kinds.length > 0 && !kinds.includes(value.event)) continue;
      return { ...value, json: JSON.parse(value.data) as Record<string, unknown> };
    }
  };
  return { response, next, close: () => ending.abort() };
}
