import { expect, test } from "bun:test";
import { applyDelta, type Delta } from "../core/model/snapshot.ts";
import { instanceOf, snapshotOf } from "./fixture.ts";
import { HostState } from "./host-state.ts";

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
  const state = new HostState("local", "here", { view: undefined, locals: new Map(), agents: 9 });
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
