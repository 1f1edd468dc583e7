import { describe, expect, test } from "bun:test";
import { defaultDefinition } from "../core/model/service.ts";
import { emptySnapshot, type RemovalReason, type Snapshot } from "../core/model/snapshot.ts";
import { instanceOf, snapshotOf } from "./fixture.ts";
import { emptyView, endHolds, HOLD_MS, preserve, probed, routed, type View } from "./hold.ts";

const NOW = 1_000_000;
const names = (count: number): string[] =>
  Array.from({ length: count }, (_, index) => `identity/host${index + 1}:5000`);
const fleet = (count: number): Snapshot =>
  snapshotOf(
    10,
    names(count).map((id) => instanceOf(id)),
  );
const believing = (snapshot: Snapshot): View => preserve(emptyView(emptySnapshot("local")), snapshot, "here", NOW).view;
const without = (snapshot: Snapshot, gone: readonly string[], reason?: RemovalReason): Snapshot => ({
  ...snapshot,
  revision: snapshot.revision + 1,
  instances: snapshot.instances.filter(({ id }) => !gone.includes(id)),
  removed: reason === undefined ? [] : gone.map((id) => ({ id, reason, revision: snapshot.revision + 1 })),
});
const routedIds = (view: View): string[] => routed(view).instances.map(({ id }) => id);

describe("self-preservation", () => {
  test("a deregistered instance goes at once", () => {
    const { view, verdicts } = preserve(
      believing(fleet(2)),
      without(fleet(2), ["identity/host1:5000"], "deregistered"),
      "here",
      NOW,
    );
    expect(routedIds(view)).toEqual(["identity/host2:5000"]);
    expect(verdicts).toEqual([{ id: "identity/host1:5000", outcome: "obeyed", because: "deregistered" }]);
  });

  test("an expired instance is held, whatever the others do", () => {
    const { view } = preserve(
      believing(fleet(10)),
      without(fleet(10), ["identity/host1:5000"], "expired"),
      "here",
      NOW,
    );
    expect(view.holds.get("identity/host1:5000")).toMatchObject({ doubt: "expired", since: NOW, failures: 0 });
    expect(routedIds(view)).toContain("identity/host1:5000");
  });

  test("two failed probes in a row end a hold, one and a pass do not", () => {
    const id = "identity/host1:5000";
    const { view } = preserve(believing(fleet(2)), without(fleet(2), [id], "expired"), "here", NOW);
    const once = probed(view, id, false, NOW + 1);
    const passed = probed(once.view, id, true, NOW + 2);
    const again = probed(passed.view, id, false, NOW + 3);
    expect(again.view.holds.get(id)).toMatchObject({ failures: 1, passedAt: NOW + 2 });
    const dead = probed(again.view, id, false, NOW + 4);
    expect(dead.view.holds.size).toBe(0);
    expect(dead.verdicts).toEqual([{ id, outcome: "released", because: "2 probes in a row failed" }]);
  });

  test("an emptied registry takes nothing away, and the definition stays with what is held", () => {
    const { view } = preserve(
      believing(fleet(3)),
      { ...emptySnapshot("local"), generation: 2, revision: 1 },
      "here",
      NOW,
    );
    expect(routedIds(view)).toEqual(names(3));
    expect(routed(view).services).toEqual({ identity: defaultDefinition });
    expect([...view.holds.values()].map(({ doubt }) => doubt)).toEqual(["unexplained", "unexplained", "unexplained"]);
  });

  test("the definition goes with the last hold", () => {
    let view = preserve(
      believing(fleet(1)),
      { ...emptySnapshot("local"), generation: 2, revision: 1 },
      "here",
      NOW,
    ).view;
    for (let time = 1; time <= 2; time += 1) view = probed(view, "identity/host1:5000", false, NOW + time).view;
    expect(routed(view)).toEqual({ services: {}, instances: [] });
  });

  test("an unexplained removal of a fifth is obeyed while a usable instance remains", () => {
    const { view } = preserve(believing(fleet(10)), without(fleet(10), names(2)), "here", NOW);
    expect(view.holds.size).toBe(0);
    expect(routedIds(view).length).toBe(8);
  });

  test("more than a fifth is held, and so is a fifth when nothing usable remains", () => {
    expect(preserve(believing(fleet(10)), without(fleet(10), names(3)), "here", NOW).view.holds.size).toBe(3);
    const last = snapshotOf(10, [
      instanceOf("identity/host1:5000"),
      ...names(10)
        .slice(1)
        .map((id) => instanceOf(id, { healthy: false })),
    ]);
    expect(preserve(believing(last), without(last, names(1)), "here", NOW).view.holds.size).toBe(1);
  });

  test("one by one is no way around the fifth, within ten minutes", () => {
    let view = believing(fleet(10));
    let registry = fleet(10);
    for (const id of names(4)) {
      registry = without(registry, [id]);
      view = preserve(view, registry, "here", NOW).view;
    }
    expect([...view.holds.keys()]).toEqual(names(4).slice(2));
    registry = without(registry, ["identity/host5:5000"]);
    view = preserve(view, registry, "here", NOW + HOLD_MS).view;
    expect(view.holds.has("identity/host5:5000")).toBe(false);
  });

  test("instances of this host and instances out of service are never held", () => {
    const snapshot = snapshotOf(10, [
      instanceOf("identity/here:5000"),
      instanceOf("identity/host2:5000", { enabled: false }),
      instanceOf("identity/host3:5000", { draining: true }),
    ]);
    const { view } = preserve(believing(snapshot), { ...snapshot, revision: 11, instances: [] }, "here", NOW);
    expect(view.holds.size).toBe(0);
  });

  test("a hold ends when the registry has the instance again, or says it deregistered", () => {
    const [first, second] = ["identity/host1:5000", "identity/host2:5000"];
    const emptied = without(fleet(2), names(2));
    const { view } = preserve(believing(fleet(2)), emptied, "here", NOW);
    const back = preserve(view, { ...fleet(1), revision: 12 }, "here", NOW).view;
    expect([...back.holds.keys()]).toEqual([second]);
    expect(routedIds(back)).toEqual([first, second]);
    const said: Snapshot = {
      ...fleet(1),
      revision: 13,
      removed: [{ id: second, reason: "deregistered", revision: 13 }],
    };
    expect(preserve(back, said, "here", NOW).view.holds.size).toBe(0);
  });

  test("a hold ends when another instance claims its address", () => {
    const { view } = preserve(believing(fleet(1)), without(fleet(1), names(1)), "here", NOW);
    const claimed = snapshotOf(12, [instanceOf("billing/host9:5000", { address: "host1" })]);
    const { view: after, verdicts } = preserve(view, claimed, "here", NOW);
    expect(after.holds.size).toBe(0);
    expect(verdicts.at(-1)?.because).toBe("its address belongs to billing/host9:5000 now");
  });

  test("a hold ends after ten minutes when others are usable, and only then", () => {
    const { view } = preserve(believing(fleet(2)), without(fleet(2), names(1), "expired"), "here", NOW);
    expect(endHolds(view, NOW + HOLD_MS - 1).view.holds.size).toBe(1);
    expect(endHolds(view, NOW + HOLD_MS).view.holds.size).toBe(0);
    const alone = preserve(believing(fleet(1)), without(fleet(1), names(1), "expired"), "here", NOW).view;
    expect(endHolds(alone, NOW + 10 * HOLD_MS).view.holds.size).toBe(1);
  });

  test("instances whose definition the registry lost keep the one they had", () => {
    const custom = { ...defaultDefinition, protocol: "h2c" as const };
    const before = { ...fleet(1), services: { identity: custom } };
    const { view } = preserve(believing(before), { ...fleet(1), revision: 11, services: {} }, "here", NOW);
    expect(routed(view).services).toEqual({ identity: custom });
  });
});
