import { describe, expect, test } from "bun:test";
import { randomOf } from "../lib/random.fixture.ts";
import { type Instance, registrationFromPut } from "./instance.ts";
import { definitionSchema } from "./service.ts";
import {
  applyDelta,
  type Delta,
  deltaSchema,
  emptySnapshot,
  mergeDeltas,
  type Snapshot,
  snapshotSchema,
} from "./snapshot.ts";

const instance = (id: string, weight = 100): Instance => {
  const [service = "", name = ""] = id.split("/");
  return { ...registrationFromPut(service, name, { port: 5000, weight }), enabled: true };
};

const delta = (
  since: number,
  revision: number,
  change: Partial<Pick<Delta, "services" | "instances" | "ack">> = {},
): Delta => ({
  generation: 1,
  since,
  revision,
  services: { put: {}, delete: [] },
  instances: { put: [], delete: [] },
  ...change,
});

const start: Snapshot = {
  ...emptySnapshot("local"),
  generation: 1,
  revision: 10,
  services: { identity: definitionSchema.parse({}) },
  instances: [instance("identity/a"), instance("identity/b")],
};

/** Order says nothing, and a merged removal carries the revision of the merged delta. */
const normal = (snapshot: Snapshot | undefined): unknown =>
  snapshot && {
    ...snapshot,
    instances: snapshot.instances.toSorted((a, b) => (a.id < b.id ? -1 : 1)),
    removed: snapshot.removed.map(({ id, reason }) => `${id} ${reason}`).toSorted(),
  };

describe("applying a delta", () => {
  test("keeps a bounded number of removals, the newest, and all of the last change", () => {
    let now: Snapshot = { ...start, instances: [] };
    const remove = (ids: readonly string[]): void => {
      const change = { put: [], delete: ids.map((id) => ({ id, reason: "expired" as const })) };
      now = applyDelta(now, delta(now.revision, now.revision + 1, { instances: change })) ?? now;
    };
    for (let round = 0; round < 1_200; round += 1) remove([`identity/${round}`]);
    remove(["identity/500"]);
    expect(now.removed).toHaveLength(1_000);
    expect(now.removed.at(-1)).toEqual({ id: "identity/500", reason: "expired", revision: now.revision });
    expect(now.removed.some(({ id }) => id === "identity/0")).toBe(false);
    remove(Array.from({ length: 1_500 }, (_, index) => `billing/${index}`));
    expect(now.removed).toHaveLength(1_500);
  });

  test("puts, replaces and removes, and remembers why", () => {
    const after = applyDelta(
      start,
      delta(10, 11, {
        services: { put: { billing: definitionSchema.parse({ owner: "money" }) }, delete: ["identity"] },
        instances: { put: [instance("identity/a", 5)], delete: [{ id: "identity/b", reason: "expired" }] },
      }),
    );
    expect(after?.revision).toBe(11);
    expect(Object.keys(after?.services ?? {})).toEqual(["billing"]);
    expect(after?.instances).toEqual([instance("identity/a", 5)]);
    expect(after?.removed).toEqual([{ id: "identity/b", reason: "expired", revision: 11 }]);
  });

  test("forgets the removal of an instance that returns", () => {
    const gone = applyDelta(
      start,
      delta(10, 11, { instances: { put: [], delete: [{ id: "identity/a", reason: "expired" }] } }),
    );
    const back = gone && applyDelta(gone, delta(11, 12, { instances: { put: [instance("identity/a")], delete: [] } }));
    expect(back?.removed).toEqual([]);
    expect(normal(back)).toEqual(normal({ ...start, revision: 12 }));
  });

  test("keeps no reason for a removal that nobody explained", () => {
    const after = applyDelta(start, delta(10, 11, { instances: { put: [], delete: [{ id: "identity/a" }] } }));
    expect(after?.instances.map(({ id }) => id)).toEqual(["identity/b"]);
    expect(after?.removed).toEqual([]);
  });

  test("refuses a gap, a step back and another generation", () => {
    expect(applyDelta(start, delta(9, 11))).toBeUndefined();
    expect(applyDelta(start, delta(11, 12))).toBeUndefined();
    expect(applyDelta(start, { ...delta(10, 11), generation: 2 })).toBeUndefined();
  });

  test("changes nothing in place", () => {
    const before = structuredClone(start);
    applyDelta(
      start,
      delta(10, 11, {
        services: { put: {}, delete: ["identity"] },
        instances: { put: [instance("identity/a", 1)], delete: [{ id: "identity/b" }] },
      }),
    );
    expect(start).toEqual(before);
  });
});

describe("merging deltas", () => {
  test("keeps that somebody waits, whichever of the two it was", () => {
    expect(mergeDeltas(delta(1, 2, { ack: true }), delta(2, 3)).ack).toBe(true);
    expect(mergeDeltas(delta(1, 2), delta(2, 3, { ack: true })).ack).toBe(true);
    expect(mergeDeltas(delta(1, 2), delta(2, 3)).ack).toBeUndefined();
  });

  test("is one step from the first's past to the second's present", () => {
    expect(mergeDeltas(delta(1, 4), delta(4, 9))).toEqual(delta(1, 9));
  });

  test("equals applying one after the other, for any sequence and any way to bundle it", () => {
    for (let seed = 1; seed <= 300; seed += 1) {
      const numbers = randomOf(seed);
      const random = (): number => numbers(1);
      const history = randomHistory(random);
      const oneByOne = history.deltas.reduce<Snapshot | undefined>(
        (state, next) => state && applyDelta(state, next),
        start,
      );
      const bundled = bundle(history.deltas, random).reduce<Snapshot | undefined>(
        (state, next) => state && applyDelta(state, next),
        start,
      );
      const atOnce = applyDelta(
        start,
        history.deltas.reduce((merged, delta) => mergeDeltas(merged, delta)),
      );
      expect([seed, normal(oneByOne)]).toEqual([seed, normal(history.truth)]);
      expect([seed, normal(bundled)]).toEqual([seed, normal(history.truth)]);
      expect([seed, normal(atOnce)]).toEqual([seed, normal(history.truth)]);
    }
  });
});

describe("what arrives on the wire", () => {
  test("is read with fields a newer Atlas added", () => {
    const wire = { ...start, colour: "red", instances: start.instances.map((one) => ({ ...one, colour: "red" })) };
    expect(snapshotSchema.parse(JSON.parse(JSON.stringify(wire))) as Snapshot).toEqual(start);
    const change = delta(10, 11, { instances: { put: [instance("identity/c")], delete: [{ id: "identity/a" }] } });
    expect(deltaSchema.parse(JSON.parse(JSON.stringify({ ...change, colour: 1 }))) as Delta).toEqual(change);
  });
});

/** Writes as a registry makes them, one per revision, and the state they lead to, kept by plain maps. */
function randomHistory(random: () => number): { deltas: Delta[]; truth: Snapshot } {
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;
  const services = new Map(Object.entries(start.services));
  const instances = new Map(start.instances.map((one) => [one.id, one]));
  const removed = new Map<string, Snapshot["removed"][number]>();
  const deltas: Delta[] = [];
  let revision = start.revision;
  for (let step = 0; step < 30; step += 1) {
    const since = revision;
    revision += 1 + Math.floor(random() * 3);
    const id = `${pick(["identity", "billing"])}/${pick(["a", "b", "c", "d"])}`;
    const service = pick(["identity", "billing", "ads"]);
    const roll = random();
    if (roll < 0.45) {
      const put = instance(id, Math.floor(random() * 256));
      instances.set(id, put);
      removed.delete(id);
      deltas.push(delta(since, revision, { instances: { put: [put], delete: [] } }));
    } else if (roll < 0.8) {
      if (!instances.delete(id)) {
        deltas.push(delta(since, revision));
        continue;
      }
      const reason = pick(["expired", "deregistered", undefined] as const);
      if (reason !== undefined) removed.set(id, { id, reason, revision });
      deltas.push(
        delta(since, revision, { instances: { put: [], delete: [reason === undefined ? { id } : { id, reason }] } }),
      );
    } else if (roll < 0.9) {
      const definition = definitionSchema.parse({ retries: Math.floor(random() * 10) });
      services.set(service, definition);
      deltas.push(delta(since, revision, { services: { put: { [service]: definition }, delete: [] } }));
    } else {
      services.delete(service);
      deltas.push(delta(since, revision, { services: { put: {}, delete: [service] } }));
    }
  }
  const truth = {
    ...start,
    revision,
    services: Object.fromEntries(services),
    instances: [...instances.values()],
    removed: [...removed.values()],
  };
  return { deltas, truth };
}

/** Merges runs of neighbours of random length, as a watcher with a 20 ms window sees them. */
function bundle(deltas: readonly Delta[], random: () => number): Delta[] {
  const bundles: Delta[] = [];
  for (const next of deltas) {
    const last = bundles.at(-1);
    if (last !== undefined && random() < 0.6) bundles[bundles.length - 1] = mergeDeltas(last, next);
    else bundles.push(next);
  }
  return bundles;
}
