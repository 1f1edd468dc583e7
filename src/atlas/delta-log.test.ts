import { describe, expect, test } from "bun:test";
import { type Instance, registrationFromPut } from "../core/model/instance.ts";
import type { Delta } from "../core/model/snapshot.ts";
import { DeltaLog } from "./delta-log.ts";

const instance = (service: string, name: string): Instance => ({
  ...registrationFromPut(service, name, { port: 5000 }),
  enabled: true,
});
const delta = (since: number, revision: number, put: readonly Instance[] = []): Delta => ({
  generation: 7,
  revision,
  since,
  services: { put: {}, delete: [] },
  instances: { put, delete: [] },
});
const at = (revision: number, generation = 7) => ({ generation, revision });

describe("the delta log", () => {
  const log = new DeltaLog();
  log.add(delta(10, 11, [instance("a", "x")]));
  log.add(delta(11, 14, [instance("b", "x"), instance("a", "x")]));
  log.add(delta(14, 15, [instance("c", "x")]));

  test("gives everything since a position as one delta", () => {
    const missed = log.missedSince(at(11), at(15));
    expect(missed).toMatchObject({ kind: "delta", delta: { since: 11, revision: 15 } });
    expect(missed.kind === "delta" && missed.delta.instances.put.map(({ id }) => id)).toEqual(["b/x", "a/x", "c/x"]);
  });

  test("has nothing for who is at the newest position", () => {
    expect(log.missedSince(at(15), at(15))).toEqual({ kind: "nothing" });
  });

  test("asks for a snapshot when it cannot tell what was missed", () => {
    const cases = { "too long ago": at(9), ahead: at(16), "another generation": at(11, 6) };
    for (const [name, position] of Object.entries(cases))
      expect([name, log.missedSince(position, at(15)).kind]).toEqual([name, "snapshot"]);
  });

  test("begins earlier for who comes from another replica's position, between two of its own", () => {
    const missed = log.missedSince(at(12), at(15));
    expect(missed).toMatchObject({ kind: "delta", delta: { since: 12, revision: 15 } });
    expect(missed.kind === "delta" && missed.delta.instances.put.map(({ id }) => id)).toEqual(["b/x", "a/x", "c/x"]);
    // the position in between leaves nothing behind for who is at our own
    expect(log.missedSince(at(11), at(15))).toMatchObject({ delta: { since: 11 } });
  });

  test("knows which services and instances a revision touched, also one that shares a delta", () => {
    expect([...(log.touchedBy(11) ?? [])]).toEqual(["a", "a/x"]);
    expect([...(log.touchedBy(12) ?? [])]).toEqual(["b", "a", "b/x", "a/x"]);
    expect([...(log.touchedBy(14) ?? [])]).toEqual(["b", "a", "b/x", "a/x"]);
    expect(log.touchedBy(10)).toBeUndefined();
    expect(log.touchedBy(16)).toBeUndefined();
  });

  test("is bounded in changes and in instances, the oldest go first", () => {
    const byChanges = new DeltaLog({ changes: 2 });
    for (const revision of [1, 2, 3]) byChanges.add(delta(revision - 1, revision));
    expect(byChanges.missedSince(at(0), at(3)).kind).toBe("snapshot");
    expect(byChanges.missedSince(at(1), at(3)).kind).toBe("delta");

    const byInstances = new DeltaLog({ instances: 10 });
    const many = Array.from({ length: 6 }, (_, index) => instance("a", `host${index}`));
    byInstances.add(delta(0, 1, many));
    byInstances.add(delta(1, 2, many));
    expect(byInstances.missedSince(at(0), at(2)).kind).toBe("snapshot");
    expect(byInstances.missedSince(at(1), at(2)).kind).toBe("delta");
    byInstances.add(delta(2, 3, [...many, ...many]));
    expect(byInstances.missedSince(at(2), at(3)).kind).toBe("snapshot");
    byInstances.add(delta(3, 4));
    expect(byInstances.missedSince(at(3), at(4)).kind).toBe("delta");
  });

  test("forgets everything at a new generation", () => {
    const cleared = new DeltaLog();
    cleared.add(delta(0, 1));
    cleared.clear();
    expect(cleared.missedSince(at(0), at(1)).kind).toBe("snapshot");
  });
});
