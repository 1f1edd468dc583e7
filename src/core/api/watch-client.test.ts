import { afterEach, describe, expect, test } from "bun:test";
import { type Clock, fakeClock } from "../lib/clock.ts";
import { silentLogger } from "../lib/logger.ts";
import { formatSse } from "../lib/sse.ts";
import { instanceSchema } from "../model/instance.ts";
import type { Delta, Snapshot } from "../model/snapshot.ts";
import {
  SILENCE_MS,
  STALE_PATIENCE_MS,
  type Watch,
  watchAtlas,
  type WatchOptions,
  type WatchStatus,
} from "./watch-client.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A replica of Atlas that says what the test tells it to. */
function replica() {
  const requests: Request[] = [];
  const tokens: (string | null)[] = [];
  const streams: WritableStreamDefaultWriter<Uint8Array>[] = [];
  const encoder = new TextEncoder();
  // a reader that hung up is no failure of the test
  const write = (writer: WritableStreamDefaultWriter<Uint8Array>, text: string): Promise<void> =>
    writer.write(encoder.encode(text)).catch(() => undefined);
  let refusal: (() => Response) | undefined;
  let greeting: readonly string[] = [];
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 0,
    fetch(request) {
      requests.push(request);
      // Bun drops the headers that nobody asked for while the request was there
      tokens.push(request.headers.get("authorization"));
      if (refusal !== undefined) return refusal();
      const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
      const writer = writable.getWriter();
      streams.push(writer);
      for (const text of greeting) void write(writer, text);
      return new Response(readable, { headers: { "content-type": "text/event-stream" } });
    },
  });
  cleanups.push(() => server.stop(true));
  return {
    url: server.url.href,
    requests,
    tokens,
    say: (text: string) => {
      for (const writer of streams.slice(-1)) void write(writer, text);
    },
    hangUp: () => {
      void streams.pop()?.close();
    },
    greet: (...texts: string[]) => {
      greeting = texts;
    },
    refuse: (respond: (() => Response) | undefined) => {
      refusal = respond;
    },
    stop: () => server.stop(true),
  };
}

const snapshot = (revision: number, more: Partial<Snapshot> = {}): Snapshot => ({
  generation: 7,
  revision,
  realm: "local",
  services: {},
  instances: [],
  removed: [],
  ...more,
});
const delta = (since: number, revision: number, more: Partial<Delta> = {}): Delta => ({
  generation: 7,
  revision,
  since,
  services: { put: {}, delete: [] },
  instances: { put: [], delete: [] },
  ...more,
});
const said = (event: string, data: unknown): string => formatSse({ event, data });

const instance = instanceSchema.parse({
  id: "identity/host001",
  service: "identity",
  instance: "host001",
  host: "host001",
  address: "10.0.0.1",
  port: 5000,
  enabled: true,
  healthy: null,
  draining: false,
  weight: 100,
  zone: "",
  version: "",
  agent: null,
});

function follow(urls: readonly string[], more: Partial<WatchOptions> = {}) {
  const clock = fakeClock();
  const states: { snapshot: Snapshot; delta: Delta | undefined }[] = [];
  const statuses: WatchStatus[] = [];
  const heartbeats: unknown[] = [];
  const watch: Watch = watchAtlas(
    { urls, realm: "local", clock, logger: silentLogger, random: () => 0, ...more },
    {
      onState: (snapshot, delta) => states.push({ snapshot, delta }),
      onStatus: (status) => statuses.push(status),
      onHeartbeat: (heartbeat) => heartbeats.push(heartbeat),
    },
  );
  cleanups.push(() => watch.stop());
  const failures = (): string[] =>
    statuses.flatMap((status) => (status.kind === "waiting" ? [status.failure.code] : []));
  return { clock, watch, states, statuses, heartbeats, failures };
}

/** Waits for real sockets; the fake clock moves by `stepMs` between two looks. */
async function until(what: string, check: () => boolean, clock = fakeClock(), stepMs = 0): Promise<void> {
  const deadline = Date.now() + 5_000;
  while (!check()) {
    if (Date.now() > deadline) throw new Error(`never: ${what}`);
    await Bun.sleep(1);
    await clock.advance(stepMs);
  }
}

describe("watching Atlas", () => {
  test("a snapshot and the deltas that follow it arrive as whole states", async () => {
    const atlas = replica();
    atlas.greet(said("snapshot", snapshot(10)));
    const { states, heartbeats } = follow([atlas.url]);
    await until("a snapshot", () => states.length === 1);
    expect(states[0]).toEqual({ snapshot: snapshot(10), delta: undefined });

    atlas.say(said("delta", delta(10, 12, { ack: true, instances: { put: [instance], delete: [] } })));
    atlas.say(said("heartbeat", { generation: 7, revision: 12, agents: 3 }));
    await until("a heartbeat", () => heartbeats.length === 1);
    expect(states[1]?.snapshot.revision).toBe(12);
    expect(states[1]?.snapshot.instances).toEqual([instance]);
    expect(states[1]?.delta?.ack).toBe(true);
    expect(heartbeats).toEqual([{ generation: 7, revision: 12, agents: 3 }]);
  });

  test("a delta that changes nothing and asks for an ack arrives: somebody waits at another replica", async () => {
    const atlas = replica();
    atlas.greet(said("snapshot", snapshot(10)));
    const { states, statuses } = follow([atlas.url]);
    await until("a snapshot", () => states.length === 1);
    atlas.say(said("delta", delta(10, 10, { ack: true })));
    await until("the delta", () => states.length === 2);
    expect(states[1]).toMatchObject({ snapshot: snapshot(10), delta: { ack: true } });
    atlas.say(said("delta", delta(10, 11)));
    await until("what follows it", () => states.length === 3);
    expect(statuses.at(-1)?.kind).toBe("connected");
  });

  test("unknown events and unknown fields of a newer Atlas are ignored", async () => {
    const atlas = replica();
    atlas.greet(
      said("weather", { sun: true }),
      said("snapshot", { ...snapshot(10), moon: "full", instances: [{ ...instance, colour: "red" }] }),
    );
    const { states, failures } = follow([atlas.url]);
    await until("a snapshot", () => states.length === 1);
    expect(states[0]?.snapshot.instances).toEqual([instance]);
    expect(failures()).toEqual([]);
  });

  test("the agent's name, boot, zone and version are part of the request, so that it holds the lease", async () => {
    const atlas = replica();
    follow([atlas.url], {
      token: "secret",
      agent: { host: "host001", boot: "b00", zone: "eu-1", version: "1.2.3" },
    });
    await until("a request", () => atlas.requests.length === 1);
    const request = atlas.requests[0];
    expect(Object.fromEntries(new URL(request?.url ?? "").searchParams)).toEqual({
      agent: "host001",
      boot: "b00",
      zone: "eu-1",
      version: "1.2.3",
    });
    expect(request?.headers.get("authorization")).toBe("Bearer secret");
    expect(request?.headers.get("last-event-id")).toBeNull();
  });

  test("after the stream ended it resumes where it was", async () => {
    const atlas = replica();
    atlas.greet(said("snapshot", snapshot(10)));
    const { clock, states } = follow([atlas.url]);
    await until("a snapshot", () => states.length === 1);
    atlas.greet(said("delta", delta(10, 11)));
    atlas.hangUp();
    await until("a delta", () => states.length === 2, clock, 10);
    expect(atlas.requests[1]?.headers.get("last-event-id")).toBe("7.10");
    expect(states[1]?.snapshot.revision).toBe(11);
  });

  test("why a replica ended the stream is reported", async () => {
    const atlas = replica();
    atlas.greet(said("snapshot", snapshot(10)), said("end", { reason: "another agent took over this host" }));
    const { statuses, failures } = follow([atlas.url]);
    await until("the end", () => failures().length > 0);
    expect(statuses.find((status) => status.kind === "waiting")?.failure.message).toContain("another agent took over");
  });

  test("a delta that does not follow asks the same replica for a snapshot, without Last-Event-ID", async () => {
    const atlas = replica();
    const other = replica();
    atlas.greet(said("snapshot", snapshot(10)), said("delta", delta(11, 12)));
    const { clock, states, failures } = follow([atlas.url, other.url]);
    await until("the gap", () => failures().includes("gap"));
    expect(states.length).toBe(1);
    atlas.greet(said("snapshot", snapshot(12)));
    await until("a resync", () => states.length === 2, clock, 10);
    expect(atlas.requests[1]?.headers.get("last-event-id")).toBeNull();
    expect(states[1]).toEqual({ snapshot: snapshot(12), delta: undefined });
    expect(other.requests.length).toBe(0);
  });

  test("a stream that is silent for 10 s is left for the next replica", async () => {
    const [first, second] = [replica(), replica()];
    first.greet(said("snapshot", snapshot(10)));
    second.greet(said("delta", delta(10, 11)));
    const { clock, states, failures, watch } = follow([first.url, second.url]);
    await until("a snapshot", () => states.length === 1);
    await clock.advance(SILENCE_MS - 1);
    expect(watch.status.kind).toBe("connected");
    await clock.advance(1);
    await until("the next replica", () => states.length === 2, clock, 1);
    expect(failures()).toEqual(["silent"]);
    expect(watch.status).toMatchObject({ kind: "connected", url: second.url });
  });

  test("heartbeats keep a quiet stream alive", async () => {
    const atlas = replica();
    atlas.greet(said("snapshot", snapshot(10)));
    const { clock, heartbeats, failures, states } = follow([atlas.url]);
    await until("a snapshot", () => states.length === 1);
    for (let beat = 1; beat <= 5; beat += 1) {
      await clock.advance(5_000);
      atlas.say(said("heartbeat", { generation: 7, revision: 10, agents: 1 }));
      await until("a heartbeat", () => heartbeats.length === beat);
    }
    expect(failures()).toEqual([]);
  });

  test("a replica that refuses connections or answers a problem is followed by the next", async () => {
    const [dead, refusing, good] = [replica(), replica(), replica()];
    await dead.stop();
    refusing.refuse(() => Response.json({ code: "unavailable", detail: "no store" }, { status: 503 }));
    good.greet(said("snapshot", snapshot(10)));
    const { clock, states, failures } = follow([dead.url, refusing.url, good.url]);
    await until("a snapshot", () => states.length === 1, clock, 1);
    expect(failures()).toEqual(["unreachable", "unavailable"]);
  });

  test("waits are jittered, grow, and never exceed 5 s", async () => {
    const atlas = replica();
    atlas.refuse(() => Response.json({ code: "unavailable", detail: "no store" }, { status: 503 }));
    const waits: number[] = [];
    const clock: Clock = {
      ...fakeClock(),
      sleep: async (ms, signal) => {
        waits.push(Math.round(ms));
        await Bun.sleep(1);
        signal?.throwIfAborted();
      },
    };
    follow([atlas.url], { random: () => 0.999_999, clock });
    await until("seven failures", () => waits.length >= 7);
    expect(waits.slice(0, 7)).toEqual([500, 1_000, 2_000, 4_000, 5_000, 5_000, 5_000]);
  });

  test("once every replica refused the token it waits longer, until it is told to try again with another", async () => {
    const [one, two] = [replica(), replica()];
    const refuse = (): Response => Response.json({ code: "unauthorized", detail: "not known" }, { status: 401 });
    for (const atlas of [one, two]) atlas.refuse(refuse);
    let token = "old";
    const options = { random: () => 0.5, token: () => token };
    const { clock, watch, states, failures } = follow([one.url, two.url], options);
    // the next replica may know a token that this one does not know yet: it is asked as soon as after any failure
    await until("both were asked", () => failures().length === 2, clock, 25);
    await clock.advance(7_000);
    expect([failures(), one.requests.length + two.requests.length]).toEqual([["unauthorized", "unauthorized"], 2]);
    token = "new";
    for (const atlas of [one, two]) {
      atlas.refuse(undefined);
      atlas.greet(said("snapshot", snapshot(10)));
    }
    watch.retry();
    await until("a snapshot", () => states.length === 1);
    expect([one.tokens.length + two.tokens.length, new Set([...one.tokens, ...two.tokens])]).toEqual([
      3,
      new Set(["Bearer old", "Bearer new"]),
    ]);
  });

  test("a snapshot of another realm is reported and not applied", async () => {
    const atlas = replica();
    atlas.greet(said("snapshot", snapshot(10, { realm: "prod" })));
    const { states, failures } = follow([atlas.url]);
    await until("the refusal", () => failures().includes("wrong_realm"));
    expect(states).toEqual([]);
  });

  test("garbage is reported and not applied", async () => {
    const atlas = replica();
    atlas.greet("event: snapshot\ndata: {not json\n\n");
    const { states, failures, clock } = follow([atlas.url]);
    await until("the refusal", () => failures().includes("bad_answer"));
    atlas.greet(said("snapshot", snapshot(3)));
    await until("recovery", () => states.length === 1, clock, 10);
  });

  test("an older state is taken for a replica that lags, until everything Atlas offers stays older", async () => {
    const atlas = replica();
    atlas.greet(said("snapshot", snapshot(10)));
    const { clock, states, failures } = follow([atlas.url]);
    await until("a snapshot", () => states.length === 1);
    atlas.greet(said("snapshot", snapshot(4)));
    atlas.hangUp();
    await until("a refusal", () => failures().includes("stale"), clock, 10);
    expect(states.length).toBe(1);
    await clock.advance(STALE_PATIENCE_MS);
    await until("the older state", () => states.length === 2, clock, 10);
    expect(states[1]?.snapshot.revision).toBe(4);
  });

  test("a new generation is taken at once, whatever its revision", async () => {
    const atlas = replica();
    atlas.greet(said("snapshot", snapshot(10)));
    const { clock, states } = follow([atlas.url]);
    await until("a snapshot", () => states.length === 1);
    atlas.greet(said("snapshot", snapshot(1, { generation: 8 })));
    atlas.hangUp();
    await until("the new generation", () => states.length === 2, clock, 10);
    expect(states[1]).toEqual({ snapshot: snapshot(1, { generation: 8 }), delta: undefined });
  });

  test("after stop no timer and no stream is left", async () => {
    const atlas = replica();
    atlas.greet(said("snapshot", snapshot(10)));
    const { clock, watch, states } = follow([atlas.url]);
    await until("a snapshot", () => states.length === 1);
    await watch.stop();
    expect(clock.pending).toBe(0);
    const before = atlas.requests.length;
    await clock.advance(60_000);
    expect(atlas.requests.length).toBe(before);
  });

  test("stop ends a wait for the next attempt", async () => {
    const atlas = replica();
    await atlas.stop();
    const { clock, watch, failures } = follow([atlas.url], { random: () => 0.9 });
    await until("a failure", () => failures().length === 1);
    await watch.stop();
    expect(clock.pending).toBe(0);
  });
});
