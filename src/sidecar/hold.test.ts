import { describe, expect, test } from "bun:test";
import { defaultDefinition } from "../core/model/service.ts";
import { emptySnapshot, type RemovalReason, type Snapshot } from "../core/model/snapshot.ts";
import { instanceOf, snapshotOf } from "./fixture.ts";
import { changeBetween, emptyView, endHolds, HOLD_MS, preserve, probed, routed, type View } from "./hold.ts";

/** What `preserve` makes of a whole snapshot. */
const preserved = (view: View, next: Snapshot, now = NOW) =>
  preserve(view, changeBetween(view.snapshot, next), "here", now);

const NOW = 1_000_000;
const names = (count: number): string[] =>
  Array.from({ length: count }, (_, index) => `identity/host${index + 1}:5000`);
const fleet = (count: number): Snapshot =>
  snapshotOf(
    10,
    names(count).map((id) => instanceOf(id)),
  );
const believing = (snapshot: Snapshot): View => preserved(emptyView(emptySnapshot("local")), snapshot).view;
const without = (snapshot: Snapshot, gone: readonly string[], reason?: RemovalReason): Snapshot => ({
  ...snapshot,
  revision: snapshot.revision + 1,
  instances: snapshot.instances.filter(({ id }) => !gone.includes(id)),
  removed: reason === undefined ? [] : gone.map((id) => ({ id, reason, revision: snapshot.revision + 1 })),
});
const routedIds = (view: View): string[] => routed(view).instances.map(({ id }) => id);

describe("self-preservation", () => {
  test("a deregistered instance goes at once", () => {
    const { view, verdicts } = preserved(
      believing(fleet(2)),
      without(fleet(2), ["identity/host1:5000"], "deregistered"),
    );
    expect(routedIds(view)).toEqual(["identity/host2:5000"]);
    expect(verdicts).toEqual([{ id: "identity/host1:5000", outcome: "obeyed", because: "deregistered" }]);
  });

  test("an expired instance is held, whatever the others do", () => {
    const { view } = preserved(believing(fleet(10)), without(fleet(10), ["identity/host1:5000"], "expired"));
    expect(view.holds.get("identity/host1:5000")).toMatchObject({ doubt: "expired", since: NOW, failures: 0 });
    expect(routedIds(view)).toContain("identity/host1:5000");
  });

  test("two failed probes in a row end a hold, one and a pass do not", () => {
    const id = "identity/host1:5000";
    const { view } = preserved(believing(fleet(2)), without(fleet(2), [id], "expired"));
    const once = probed(view, id, false, NOW + 1);
    const passed = probed(once.view, id, true, NOW + 2);
    const again = probed(passed.view, id, false, NOW + 3);
    expect(again.view.holds.get(id)).toMatchObject({ failures: 1, passedAt: NOW + 2 });
    const dead = probed(again.view, id, false, NOW + 4);
    expect(dead.view.holds.size).toBe(0);
    expect(dead.verdicts).toEqual([{ id, outcome: "released", because: "2 probes in a row failed" }]);
  });

  test("an emptied registry takes nothing away, and the definition stays with what is held", () => {
    const { view } = preserved(believing(fleet(3)), { ...emptySnapshot("local"), generation: 2, revision: 1 });
    expect(routedIds(view)).toEqual(names(3));
    expect(routed(view).services).toEqual({ identity: defaultDefinition });
    expect([...view.holds.values()].map(({ doubt }) => doubt)).toEqual(["unexplained", "unexplained", "unexplained"]);
  });

  test("the definition goes with the last hold", () => {
    let view = preserved(believing(fleet(1)), { ...emptySnapshot("local"), generation: 2, revision: 1 }).view;
    for (let time = 1; time <= 2; time += 1) view = probed(view, "identity/host1:5000", false, NOW + time).view;
    expect(routed(view)).toEqual({ services: {}, instances: [] });
  });

  test("an unexplained removal of a fifth is obeyed while a usable instance remains", () => {
    const { view } = preserved(believing(fleet(10)), without(fleet(10), names(2)));
    expect(view.holds.size).toBe(0);
    expect(routedIds(view).length).toBe(8);
  });

  test("more than a fifth is held, and so is a fifth when nothing usable remains", () => {
    expect(preserved(believing(fleet(10)), without(fleet(10), names(3))).view.holds.size).toBe(3);
    const last = snapshotOf(10, [
      instanceOf("identity/host1:5000"),
      ...names(10)
        .slice(1)
        .map((id) => instanceOf(id, { healthy: false })),
    ]);
    expect(preserved(believing(last), without(last, names(1))).view.holds.size).toBe(1);
  });

  test("one by one is no way around the fifth, within ten minutes", () => {
    let view = believing(fleet(10));
    let registry = fleet(10);
    for (const id of names(4)) {
      registry = without(registry, [id]);
      view = preserved(view, registry).view;
    }
    expect([...view.holds.keys()]).toEqual(names(4).slice(2));
    registry = without(registry, ["identity/host5:5000"]);
    view = preserved(view, registry, NOW + HOLD_MS).view;
    expect(view.holds.has("identity/host5:5000")).toBe(false);
  });

  test("instances of this host and instances out of service are never held", () => {
    const snapshot = snapshotOf(10, [
      instanceOf("identity/here:5000"),
      instanceOf("identity/host2:5000", { enabled: false }),
      instanceOf("identity/host3:5000", { draining: true }),
    ]);
    const { view } = preserved(believing(snapshot), { ...snapshot, revision: 11, instances: [] });
    expect(view.holds.size).toBe(0);
  });

  test("a hold ends when the registry has the instance again, or says it deregistered", () => {
    const [first, second] = ["identity/host1:5000", "identity/host2:5000"];
    const emptied = without(fleet(2), names(2));
    const { view } = preserved(believing(fleet(2)), emptied);
    const back = preserved(view, { ...fleet(1), revision: 12 }).view;
    expect([...back.holds.keys()]).toEqual([second]);
    expect(routedIds(back)).toEqual([first, second]);
    const said: Snapshot = {
      ...fleet(1),
      revision: 13,
      removed: [{ id: second, reason: "deregistered", revision: 13 }],
    };
    expect(preserved(back, said).view.holds.size).toBe(0);
  });

  test("a hold ends when another instance claims its address", () => {
    const { view } = preserved(believing(fleet(1)), without(fleet(1), names(1)));
    const claimed = snapshotOf(12, [instanceOf("billing/host9:5000", { address: "host1" })]);
    const { view: after, verdicts } = preserved(view, claimed);
    expect(after.holds.size).toBe(0);
    expect(verdicts.at(-1)?.because).toBe("its address belongs to billing/host9:5000 now");
  });

  test("a hold ends after ten minutes when others are usable, and only then", () => {
    const { view } = preserved(believing(fleet(2)), without(fleet(2), names(1), "expired"));
    expect(endHolds(view, NOW + HOLD_MS - 1).view.holds.size).toBe(1);
    expect(endHolds(view, NOW + HOLD_MS).view.holds.size).toBe(0);
    const alone = preserved(believing(fleet(1)), without(fleet(1), names(1), "expired")).view;
    expect(endHolds(alone, NOW + 10 * HOLD_MS).view.holds.size).toBe(1);
  });

  test("instances whose definition the registry lost keep the one they had", () => {
    const custom = { ...defaultDefinition, protocol: "h2c" as const };
    const before = { ...fleet(1), services: { identity: custom } };
    const { view } = preserved(believing(before), { ...fleet(1), revision: 11, services: {} });
    expect(routed(view).services).toEqual({ identity: custom });
  });
});
