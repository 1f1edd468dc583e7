import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { parsePosition } from "../core/model/position.ts";
import { defaultDefinition } from "../core/model/service.ts";
import { applyDelta, deltaSchema, type Snapshot, snapshotSchema } from "../core/model/snapshot.ts";
import { ACTOR, collect, createWorld, dataOf, settle, type World } from "./fixture.ts";
import type { WatchRequest } from "./watch-hub.ts";

let world: World;
beforeEach(async () => {
  world = await createWorld();
});
afterEach(async () => {
  await world.dispose();
});

const watch = (request: Partial<WatchRequest> = {}) => {
  const watcher = world.hub.open({ since: undefined, services: undefined, ...request });
  return collect(watcher.body);
};
const kinds = (events: readonly { event: string }[]): string[] => events.map(({ event }) => event);

describe("the watch hub", () => {
  test("begins with a snapshot that carries its position as id", async () => {
    await world.put("identity", "a");
    const { events } = watch();
    await settle();
    expect(kinds(events)).toEqual(["snapshot"]);
    const { generation, revision } = world.registry.state();
    expect(events[0]?.id).toBe(`${generation}.${revision}`);
    expect(dataOf(events[0])).toMatchObject({
      generation,
      revision,
      realm: "local",
      services: { identity: defaultDefinition },
      removed: [],
    });
  });

  test("the first change leaves at once, those within 20 ms after it share a delta", async () => {
    await world.put("identity", "a");
    await world.pass(1_000);
    const { events } = watch();
    await world.put("identity", "b");
    await settle();
    expect(kinds(events)).toEqual(["snapshot", "delta"]);
    await world.put("identity", "c");
    await world.put("identity", "d");
    await settle();
    expect(events).toHaveLength(2);
    await world.pass(19);
    expect(events).toHaveLength(2);
    await world.pass(1);
    expect(kinds(events)).toEqual(["snapshot", "delta", "delta"]);
    const [snapshot, first, second] = events.map(dataOf);
    expect(first?.since).toBe(snapshot?.revision);
    expect(second?.since).toBe(first?.revision);
    expect(second?.revision).toBe(world.registry.state().revision);
    const put = deltaSchema.parse(second).instances.put;
    expect(put.map(({ instance }) => instance)).toEqual(["c", "d"]);
  });

  test("a watcher that opens between a change and its delta misses nothing and gets nothing twice", async () => {
    await world.put("identity", "a");
    await world.pass(1_000);
    const early = watch();
    await world.put("identity", "b");
    await world.put("identity", "c");
    const late = watch();
    await world.pass(100);
    await world.put("identity", "d");
    await world.pass(100);
    for (const { events } of [early, late]) expect(follow(events)).toEqual(normal(world.registry.snapshot()));
    expect(kinds(late.events)).toEqual(["snapshot", "delta"]);
  });

  test("resumes: nothing missed is a heartbeat, something missed is one delta, too much a snapshot", async () => {
    await world.put("identity", "a");
    const before = world.registry.state();
    const since = { generation: before.generation, revision: before.revision };
    const current = watch({ since });
    await settle();
    expect(kinds(current.events)).toEqual(["heartbeat"]);
    expect(current.events[0]?.id).toBeUndefined();

    await world.put("identity", "b");
    await world.put("identity", "c");
    await world.pass(100);
    const resumed = watch({ since });
    const foreign = watch({ since: { generation: since.generation - 1, revision: since.revision } });
    const malformed = watch({ since: parsePosition("nonsense") });
    await settle();
    expect(kinds(resumed.events)).toEqual(["delta"]);
    expect(dataOf(resumed.events[0])).toMatchObject({ since: since.revision });
    expect(kinds(foreign.events)).toEqual(["snapshot"]);
    expect(kinds(malformed.events)).toEqual(["snapshot"]);
  });

  test("beats every 5 s, never ahead of what was sent", async () => {
    const { events } = watch();
    await world.pass(4_990);
    expect(kinds(events)).toEqual(["snapshot"]);
    await world.put("identity", "a");
    await world.put("identity", "b");
    await world.pass(5);
    // the second put waits for its delta, and the beat comes first
    const sent = events.length;
    await world.pass(6);
    const beats = events.slice(sent).filter(({ event }) => event === "heartbeat");
    expect(beats).toHaveLength(1);
    let position = 0;
    for (const event of events) {
      const { revision } = dataOf(event);
      expect(revision).toBeGreaterThanOrEqual(position);
      if (event.event === "heartbeat") expect(revision).toBe(position);
      position = revision;
    }
    expect(beats[0]?.id).toBeUndefined();
    expect(dataOf(beats[0])).toMatchObject({ agents: 0 });
  });

  test("a filtered stream has its services alone, and revision-only deltas for the rest", async () => {
    await world.put("identity", "a");
    await world.put("billing", "a");
    await world.operations.deleteInstance("billing", "a", undefined, ACTOR);
    await world.put("identity", "gone");
    await world.operations.deleteInstance("identity", "gone", undefined, ACTOR);
    await world.pass(100);
    const { events } = watch({ services: new Set(["identity"]) });
    await world.put("billing", "b");
    await world.pass(100);
    await world.put("identity", "b");
    await world.pass(100);
    await world.operations.deleteService("billing", true, ACTOR);
    await world.pass(100);
    const [snapshot, other, own, gone] = events.map(dataOf);
    expect(Object.keys(snapshot?.services ?? {})).toEqual(["identity"]);
    expect(snapshot?.instances).toHaveLength(1);
    expect(snapshot?.removed).toMatchObject([{ id: "identity/gone" }]);
    const empty = { services: { put: {}, delete: [] }, instances: { put: [], delete: [] } };
    expect(other).toMatchObject(empty);
    expect(own).toMatchObject({ instances: { put: [{ id: "identity/b" }], delete: [] } });
    expect(gone).toMatchObject(empty);
    expect(gone?.revision).toBe(world.registry.state().revision);
  });

  test("one event is put into bytes once, whatever the number of its readers", async () => {
    const toText = spyOn(JSON, "stringify");
    const texts = (): number => toText.mock.calls.filter(([data]) => data?.instances !== undefined).length;
    try {
      for (let index = 0; index < 50; index += 1) watch();
      expect(texts()).toBe(1);
      await world.put("identity", "a");
      toText.mockClear();
      await world.put("identity", "b");
      await world.pass(100);
      expect(texts()).toBe(1);
    } finally {
      toText.mockRestore();
    }
  });

  test("settings come at once and with every change, the newest last, and only to who asked", async () => {
    await world.settings.put("identity", { A: 1 }, undefined, ACTOR);
    const asked = watch({ settings: new Set(["identity", "billing"]) });
    const other = watch();
    await settle();
    expect(asked.events.slice(1).map((event): unknown => dataOf(event))).toEqual([
      { service: "identity", version: 1, values: { A: 1 } },
      { service: "billing", version: 0, values: {} },
    ]);
    await Promise.all([2, 3].map((value) => world.settings.put("identity", { A: value }, undefined, ACTOR)));
    await settle();
    expect(dataOf(asked.events.at(-1))).toMatchObject({ service: "identity", version: 3, values: { A: 3 } });
    expect(asked.events.every(({ event, id }) => event !== "settings" || id === undefined)).toBe(true);
    expect(kinds(other.events)).toEqual(["snapshot"]);
  });

  test("a change that somebody waits for asks for acks at once, others do not", async () => {
    await world.operations.putService("identity", defaultDefinition, ACTOR);
    const { events } = watch();
    await world.put("identity", "a");
    await world.pass(100);
    const wait = world.waits.begin();
    await world.put("identity", "b");
    await world.pass(100);
    wait.end();
    await world.put("identity", "c");
    await world.pass(100);
    expect(events.filter(({ event }) => event === "delta").map((event) => dataOf(event).ack)).toEqual([
      undefined,
      true,
      undefined,
    ]);
  });

  test("random histories with watchers that come, go and resume: everyone ends with the registry's state", async () => {
    let seed = 1;
    const random = (below: number): number => {
      seed = (seed * 48_271) % 2_147_483_647;
      return seed % below;
    };
    const streams = [watch()];
    for (let step = 0; step < 150; step += 1) {
      const [service, name] = [`s${random(3)}`, `h${random(5)}`];
      const action = random(10);
      if (action < 5) await world.put(service, name, { weight: random(3) });
      else if (action < 7) await world.operations.deleteInstance(service, name, undefined, ACTOR);
      else if (action < 8) await world.operations.deleteService(service, true, ACTOR);
      else if (action < 9) await world.pass(random(30));
      else streams.push(watch());
    }
    await world.pass(100);
    const truth = normal(world.registry.snapshot());
    for (const { events } of streams) expect(follow(events)).toEqual(truth);
  });
});

/** The state of a reader that applied every event. */
function follow(events: readonly { event: string; data: string }[]): unknown {
  let state: Snapshot | undefined;
  for (const { event, data } of events) {
    if (event === "snapshot") state = snapshotSchema.parse(JSON.parse(data));
    else if (event === "delta" && state !== undefined) state = applyDelta(state, deltaSchema.parse(JSON.parse(data)));
  }
  return state && normal(state);
}

function normal(snapshot: Snapshot): unknown {
  const byId = (a: { id: string }, b: { id: string }): number => a.id.localeCompare(b.id);
  // a reader dates a removal by the delta that told it, which may hold several revisions
  const removed = snapshot.removed.map(({ id, reason }) => ({ id, reason })).sort(byId);
  return { ...snapshot, instances: [...snapshot.instances].sort(byId), removed };
}
