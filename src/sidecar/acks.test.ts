import { expect, test } from "bun:test";
import type { AtlasClient } from "../core/api/atlas-client.ts";
import { fakeClock } from "../core/lib/clock.ts";
import { Fault } from "../core/lib/errors.ts";
import { silentLogger } from "../core/lib/logger.ts";
import { type Ack, ackSchema } from "../core/model/agent.ts";
import { createAcks } from "./acks.ts";

const ack = (revision: number): Ack => ackSchema.parse({ generation: 1, revision });

function setup() {
  const clock = fakeClock();
  const sent: { at: number; revision: number; path: string }[] = [];
  const start = clock.now();
  let connected = true;
  let failing = false;
  let release: (() => void) | undefined;
  let gated = false;
  const client: AtlasClient = {
    async request(path, request) {
      const { revision } = ackSchema.parse(request.body);
      sent.push({ at: clock.now() - start, revision, path });
      if (gated) await new Promise<void>((resolve) => (release = resolve));
      if (failing) throw new Fault({ code: "unreachable", message: "gone" });
      return request.schema.parse({});
    },
    fetch: () => Promise.reject(new Error("acks are requests")),
  };
  const acks = createAcks({
    host: "host001",
    clock,
    logger: silentLogger,
    random: () => 0.5,
    replica: () => (connected ? client : undefined),
  });
  return {
    clock,
    sent,
    acks,
    connect: (value: boolean) => (connected = value),
    fail: (value: boolean) => (failing = value),
    gate: () => (gated = true),
    release: () => release?.(),
  };
}

test("acks somebody waits for leave at once, the others once a second with the newest position", async () => {
  const { clock, sent, acks } = setup();
  acks.applied(ack(1), false);
  await clock.advance(100);
  acks.applied(ack(2), false);
  acks.applied(ack(3), false);
  await clock.advance(100);
  expect(sent).toEqual([{ at: 0, revision: 1, path: "/v1/agents/host001/acks" }]);
  await clock.advance(800);
  expect(sent.at(-1)).toMatchObject({ at: 1_000, revision: 3 });
  await clock.advance(100);
  acks.applied(ack(4), true);
  await clock.advance(0);
  expect(sent.at(-1)).toMatchObject({ at: 1_100, revision: 4 });
});

test("what is applied while an ack is on its way is told a second later, not ten", async () => {
  const { clock, sent, acks, gate, release } = setup();
  acks.applied(ack(1), false);
  await clock.advance(500);
  gate();
  acks.connected();
  await clock.advance(0);
  acks.applied(ack(2), false);
  release();
  await clock.advance(1_000);
  expect(sent.map(({ at, revision }) => [at, revision])).toEqual([
    [0, 1],
    [500, 1],
    [1_500, 2],
  ]);
});

test("a quiet agent acks every ten seconds", async () => {
  const { clock, sent, acks } = setup();
  acks.applied(ack(1), false);
  await clock.advance(30_000);
  expect(sent.map(({ at }) => at)).toEqual([0, 10_000, 20_000, 30_000]);
});

test("one at a time, and what came meanwhile goes next", async () => {
  const { clock, sent, acks, gate, release } = setup();
  gate();
  acks.applied(ack(1), true);
  acks.applied(ack(2), true);
  acks.applied(ack(3), true);
  await clock.advance(0);
  expect(sent.map(({ revision }) => revision)).toEqual([1]);
  release();
  await clock.advance(0);
  expect(sent.map(({ revision }) => revision)).toEqual([1, 3]);
});

test("an ack that did not arrive is sent again, within five seconds", async () => {
  const { clock, sent, acks, fail } = setup();
  fail(true);
  acks.applied(ack(1), true);
  await clock.advance(20_000);
  const waits = sent.slice(1).map(({ at }, index) => at - sent[index]!.at);
  expect(waits.slice(0, 3)).toEqual([100, 200, 400]);
  expect(Math.max(...waits)).toBeLessThanOrEqual(5_000);
  fail(false);
  await clock.advance(5_000);
  const before = sent.length;
  await clock.advance(9_000);
  expect(sent.length - before).toBeLessThanOrEqual(1);
});

test("nothing is sent without a replica, and it hears where we are as soon as there is one", async () => {
  const { clock, sent, acks, connect } = setup();
  connect(false);
  acks.applied(ack(5), true);
  await clock.advance(20_000);
  expect(sent).toEqual([]);
  connect(true);
  acks.connected();
  await clock.advance(0);
  expect(sent).toMatchObject([{ revision: 5 }]);
});

test("stop ends it", async () => {
  const { clock, sent, acks } = setup();
  acks.applied(ack(1), false);
  await clock.advance(0);
  acks.stop();
  expect(clock.pending).toBe(0);
  await clock.advance(60_000);
  expect(sent.length).toBe(1);
});
