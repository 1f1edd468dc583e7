import { expect, test } from "bun:test";
import { applyDelta, type Delta } from "../core/model/snapshot.ts";
import { instanceOf, snapshotOf } from "./fixture.ts";
import { HostState } from "./host-state.ts";
import { putLocal } from "./local-instance.ts";

test("a realm grows at once and shrinks after ten minutes", () => {
  const state = new HostState("local", "here");
  expect(state.countAgents(20, 0)).toBe(true);
  expect(state.countAgents(21, 1)).toBe(true);
  expect(state.countAgents(20, 2)).toBe(false);
  expect(state.countAgents(20, 600_000)).toBe(false);
  expect(state.agents).toBe(21);
  expect(state.countAgents(21, 600_001)).toBe(false);
  expect(state.countAgents(20, 1_200_000)).toBe(false);
  expect(state.countAgents(20, 1_200_001)).toBe(true);
  expect(state.agents).toBe(20);
});

test("a number from disk counts as just seen", () => {
  const state = new HostState("local", "here", { view: undefined, locals: new Map(), agents: 9, disabled: new Set() });
  expect(state.countAgents(1, 5_000)).toBe(false);
  expect(state.countAgents(1, 605_000)).toBe(true);
});

test("a delta and the snapshot it leads to are believed alike", () => {
  const names = ["a", "b", "c", "d", "e", "f"].map((name) => `identity/${name}:5000`);
  const full = snapshotOf(
    10,
    names.map((id) => instanceOf(id)),
  );
  const delta: Delta = {
    generation: 1,
    revision: 11,
    since: 10,
    services: { put: {}, delete: [] },
    instances: {
      put: [instanceOf("identity/b:5000", { weight: 1 }), instanceOf("identity/g:5000"), instanceOf("identity/c:5000")],
      delete: [
        { id: "identity/a:5000", reason: "deregistered" },
        { id: "identity/c:5000", reason: "expired" },
        { id: "identity/d:5000", reason: "expired" },
        { id: "identity/e:5000" },
        { id: "identity/f:5000" },
        { id: "identity/unknown:5000" },
      ],
    },
  };
  const next = applyDelta(full, delta);
  if (next === undefined) throw new Error("it follows");
  const [byDelta, bySnapshot] = [new HostState("local", "here"), new HostState("local", "here")];
  const verdicts = [byDelta, bySnapshot].map((state, index) => {
    state.take(full, undefined, 0);
    return state.take(next, index === 0 ? delta : undefined, 1);
  });
  expect(verdicts[0]).toEqual(verdicts[1]);
  expect(byDelta.view).toEqual(bySnapshot.view);
  expect([...byDelta.view.holds.keys()]).toEqual(["identity/d:5000", "identity/e:5000", "identity/f:5000"]);
  for (const id of [...names, "identity/g:5000"]) expect(byDelta.seen(id)).toEqual(bySnapshot.seen(id));
  expect(byDelta.desired()).toEqual(bySnapshot.desired());
});

test("an operator's no outlives the instance's absence, until he says otherwise", () => {
  const id = "identity/here:5000";
  const registered = (revision: number, enabled: boolean) =>
    snapshotOf(revision, [instanceOf(id, { enabled, agent: "here" })]);
  const gone = (revision: number) => ({
    ...snapshotOf(revision, []),
    removed: [{ id, reason: "deregistered" as const, revision }],
  });
  const spec = { port: 5000, address: "10.0.0.1", weight: 100, zone: "", version: "", ttlMs: 30_000 };
  const back = putLocal(undefined, "identity", "here:5000", spec, { host: "here", address: "10.0.0.1", zone: "" }, 0);
  const enabled = (state: HostState): boolean | undefined => state.desired().instances[0]?.enabled;

  const state = new HostState("local", "here");
  state.take(registered(1, false), undefined, 0);
  state.take(gone(2), undefined, 1);
  // started again: Atlas has not answered yet, and this host remembers
  state.locals.set(id, back);
  expect(enabled(state)).toBe(false);
  const next = new HostState("local", "here", {
    view: state.view,
    locals: state.locals,
    agents: 1,
    disabled: state.disabled,
  });
  expect(enabled(next)).toBe(false);

  next.take(registered(3, true), undefined, 2);
  next.take(gone(4), undefined, 3);
  expect(enabled(next)).toBe(true);
});
