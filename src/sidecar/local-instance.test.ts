import { describe, expect, test } from "bun:test";
import { putLocalSchema } from "../core/model/local.ts";
import { defaultDefinition } from "../core/model/service.ts";
import { emptySnapshot, type Snapshot } from "../core/model/snapshot.ts";
import { instanceOf, snapshotOf } from "./fixture.ts";
import { observe, unchecked } from "./health.ts";
import {
  acceptStep,
  adoptLocal,
  isForgettable,
  type LocalInstance,
  nextStep,
  overlayLocal,
  putLocal,
} from "./local-instance.ts";

const HOST = { host: "here", address: "10.0.0.1", zone: "eu-1" };
const NOW = 1_000_000;
const nothing = emptySnapshot("local");
const limits = { rise: 2, fall: 3 };

const put = (input: object = {}, previous?: LocalInstance, now = NOW): LocalInstance =>
  putLocal(previous, "identity", "here:5000", putLocalSchema.parse({ port: 5000, ...input }), HOST, now);
const seen = (snapshot: Snapshot) => snapshot.instances.find(({ id }) => id === "identity/here:5000");
const step = (local: LocalInstance, snapshot: Snapshot = nothing) => nextStep(local, snapshot, seen(snapshot), "here");
const checked = (local: LocalInstance, passed: boolean): LocalInstance => ({
  ...local,
  health: observe(local.health, passed, limits, NOW),
});
/** The local instance after Atlas accepted whatever it has to be told. */
function told(local: LocalInstance, revision: number, snapshot: Snapshot = nothing): LocalInstance {
  const next = step(local, snapshot);
  return next === undefined ? local : acceptStep(local, local, next, { generation: 1, revision });
}
const echoed = (revision: number, more: object = {}): Snapshot =>
  snapshotOf(revision, [
    instanceOf("identity/here:5000", { address: "10.0.0.1", zone: "eu-1", healthy: null, ...more }),
  ]);

describe("what Atlas is told of a local instance", () => {
  test("first its definition, when it published one, then the instance with this host's address and zone", () => {
    const fresh = put({ definition: { owner: "core" } });
    expect(step(fresh)).toEqual({ kind: "define", definition: { ...defaultDefinition, owner: "core" } });
    expect(step(told(fresh, 1))).toMatchObject({
      kind: "put",
      put: {
        port: 5000,
        address: "10.0.0.1",
        zone: "eu-1",
        weight: 100,
        agent: "here",
        healthy: null,
        draining: false,
      },
    });
    expect(step(told(told(fresh, 1), 2))).toBeUndefined();
  });

  test("nothing twice: the snapshot from before our write is not taken for a loss", () => {
    const local = told(put(), 5);
    expect(step(local, snapshotOf(4, []))).toBeUndefined();
    expect(step(local, echoed(5))).toBeUndefined();
  });

  test("a registry that lost the instance is told again", () => {
    const local = told(put(), 5);
    expect(step(local, snapshotOf(6, []))?.kind).toBe("put");
    expect(step(local, { ...nothing, generation: 2, revision: 1 })?.kind).toBe("put");
    expect(step(local, echoed(6, { agent: null }))?.kind).toBe("put");
    expect(step(local, echoed(6, { port: 6000 }))?.kind).toBe("put");
  });

  test("an instance that another agent claims is left to it, until it is registered here anew", () => {
    const local = told(put(), 5);
    const claimed = echoed(6, { agent: "there" });
    expect(step(local, claimed)).toBeUndefined();
    expect(step(checked(local, false), claimed)).toBeUndefined();
    expect(step(put({}, local), claimed)).toBeUndefined();
    expect(step(put({ definition: {} }, local), claimed)?.kind).toBe("define");
    expect(step(put({ weight: 3 }, local), claimed)?.kind).toBe("put");
  });

  test("what an operator changed in the registry is left alone", () => {
    const local = told(put(), 5);
    expect(
      step(local, echoed(6, { enabled: false, weight: 1, version: "x", zone: "z", draining: true })),
    ).toBeUndefined();
  });

  test("health goes out when it is known and differs", () => {
    const local = told(put(), 5);
    expect(step(checked(local, true), echoed(5))).toMatchObject({ kind: "patch", patch: { healthy: true } });
    expect(step(told(checked(local, true), 6, echoed(5)), echoed(5))).toBeUndefined();
    expect(step(checked(local, false), echoed(7, { healthy: true }))).toMatchObject({ patch: { healthy: false } });
  });

  test("draining goes out once", () => {
    const local = { ...told(put(), 5), draining: true };
    expect(step(local, echoed(5))).toMatchObject({ kind: "patch", patch: { draining: true } });
    expect(step(told(local, 6, echoed(5)), echoed(5))).toBeUndefined();
  });

  test("a repetition renews the ttl and says nothing; new words are sent", () => {
    const local = told(put(), 5);
    const repeated = put({}, local, NOW + 10_000);
    expect(repeated.expiresAt).toBe(NOW + 40_000);
    expect(step(repeated, echoed(5))).toBeUndefined();
    expect(step(put({ weight: 7 }, local), echoed(5))).toMatchObject({ kind: "put", put: { weight: 7 } });
  });

  test("words that came while a write was under way are sent after it", () => {
    const sent = put();
    const sending = step(sent);
    const changed = put({ weight: 7 }, sent);
    expect(sending?.kind).toBe("put");
    const after = acceptStep(changed, sent, sending!, { generation: 1, revision: 5 });
    expect(step(after, echoed(5))).toMatchObject({ kind: "put", put: { weight: 7 } });
  });

  test("a repetition does not undo a drain, a start does", () => {
    const draining = { ...told(put(), 5), draining: true };
    expect(put({}, draining).draining).toBe(true);
    const started = put({ definition: {} }, draining);
    expect(started).toMatchObject({ draining: false, health: unchecked });
    expect(step(told(started, 6), echoed(5, { draining: true }))).toMatchObject({
      kind: "put",
      put: { draining: false },
    });
  });

  test("one that left is deleted, then forgotten when Atlas agrees", () => {
    const left: LocalInstance = { ...told(put(), 5), left: "deregistered" };
    expect(step(left, echoed(5))?.kind).toBe("delete");
    const deleted = told(left, 6, echoed(5));
    expect(step(deleted, echoed(5))).toBeUndefined();
    expect(isForgettable(deleted, echoed(5), seen(echoed(5)), "here")).toBe(false);
    expect(isForgettable(deleted, snapshotOf(6, []), undefined, "here")).toBe(true);
  });

  test("one that left before Atlas echoed it is still deleted", () => {
    const left: LocalInstance = { ...told(put(), 5), left: "deregistered" };
    expect(step(left, snapshotOf(4, []))?.kind).toBe("delete");
    expect(isForgettable(left, snapshotOf(4, []), undefined, "here")).toBe(false);
  });

  test("one that left and belongs to somebody else in Atlas is left to him", () => {
    const left: LocalInstance = { ...told(put(), 5), left: "deregistered" };
    expect(step(left, echoed(6, { agent: null }))).toBeUndefined();
    expect(isForgettable(left, echoed(6, { agent: null }), seen(echoed(6, { agent: null })), "here")).toBe(true);
  });

  test("one that comes back before Atlas deleted it is registered anew", () => {
    const left: LocalInstance = { ...told(put(), 5), left: "deregistered" };
    const back = put({}, told(left, 6, echoed(5)));
    expect(step(back, echoed(5))?.kind).toBe("put");
  });

  test("one that Atlas says is ours is taken over as it is", () => {
    const [instance] = echoed(9, { healthy: true, weight: 3 }).instances;
    const local = adoptLocal(instance!, 30_000, { generation: 1, revision: 9 }, NOW);
    expect(step(local, echoed(9, { healthy: true, weight: 3 }))).toBeUndefined();
    expect(local).toMatchObject({ expiresAt: NOW + 30_000, health: { healthy: true, proven: true } });
  });
});

describe("what this host routes of its own instances", () => {
  const view = { services: {}, instances: [] };

  test("an instance that Atlas has not seen is routed with the definition it published", () => {
    const local = put({ definition: { owner: "core" } });
    const { services, instances } = overlayLocal(view, [local], "here", new Set());
    expect(services).toEqual({ identity: { ...defaultDefinition, owner: "core" } });
    expect(instances).toEqual([instanceOf("identity/here:5000", { address: "10.0.0.1", zone: "eu-1", healthy: null })]);
  });

  test("the operator's word is the registry's, health and draining are this host's", () => {
    const local = { ...checked(told(put(), 5), false), draining: true };
    const { instances } = overlayLocal(
      echoed(5, { enabled: false, weight: 9, healthy: true }),
      [local],
      "here",
      new Set(),
    );
    expect(instances[0]).toMatchObject({ enabled: false, weight: 9, healthy: false, draining: true });
  });

  test("an instance that left is not routed, whatever Atlas still says", () => {
    expect(overlayLocal(echoed(5), [{ ...put(), left: "expired" }], "here", new Set()).instances).toEqual([]);
  });

  test("the registry's definition stands, and everything else is untouched", () => {
    const custom = { ...defaultDefinition, owner: "ann" };
    const other = instanceOf("billing/host9:5000");
    const { services, instances } = overlayLocal(
      { services: { identity: custom }, instances: [other] },
      [put({ definition: {} })],
      "here",
      new Set(),
    );
    expect(services.identity).toEqual(custom);
    expect(instances[0]).toBe(other);
  });
});
