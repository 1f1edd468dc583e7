import { expect, test } from "bun:test";
import { fakeClock } from "../core/lib/clock.ts";
import { silentLogger } from "../core/lib/logger.ts";
import { emptySnapshot } from "../core/model/snapshot.ts";
import { instanceOf, snapshotOf } from "./fixture.ts";
import { HostState } from "./host-state.ts";
import { createSidecarMetrics } from "./metrics.ts";
import { createPreserver } from "./preserver.ts";

const [first, second] = ["identity/host1:5000", "identity/host2:5000"];
const full = snapshotOf(10, [instanceOf(first), instanceOf(second)]);
const emptied = { ...emptySnapshot("local"), generation: 2, revision: 1 };

function setup(random = 0.5) {
  const clock = fakeClock();
  const start = clock.now();
  const state = new HostState("local", "here");
  const probes: { at: number; address: string; path: string }[] = [];
  const dead = new Set<string>();
  let changes = 0;
  const preserver = createPreserver({
    state,
    clock,
    logger: silentLogger,
    metrics: createSidecarMetrics(),
    probe: async ({ address, definition }) => {
      probes.push({ at: clock.now() - start, address, path: definition.healthcheck.path });
      return { passed: !dead.has(address), detail: "" };
    },
    random: () => random,
    changed: () => {
      changes += 1;
    },
  });
  preserver.take(full, undefined);
  return { clock, state, probes, preserver, dead, changes: () => changes };
}

test("a removal in doubt is probed within three seconds, and what lives stays", async () => {
  const { clock, state, probes, preserver } = setup(0.999);
  preserver.take(emptied, undefined);
  await clock.advance(3_000);
  expect(probes).toEqual([
    { at: 2_997, address: "host1", path: "/healthcheck" },
    { at: 2_997, address: "host2", path: "/healthcheck" },
  ]);
  expect([...state.view.holds.keys()]).toEqual([first, second]);
});

test("what fails twice goes, within a second of the first failure", async () => {
  const { clock, state, probes, preserver, dead, changes } = setup();
  dead.add("host1");
  preserver.take(emptied, undefined);
  await clock.advance(1_500);
  expect(state.view.holds.size).toBe(2);
  await clock.advance(1_000);
  expect([...state.view.holds.keys()]).toEqual([second]);
  expect(probes.filter(({ address }) => address === "host1").map(({ at }) => at)).toEqual([1_500, 2_500]);
  expect(changes()).toBe(1);
});

test("what is held is probed every ten seconds, so that it goes when it dies later", async () => {
  const { clock, state, probes, preserver, dead } = setup();
  preserver.take(emptied, undefined);
  await clock.advance(31_500);
  expect(probes.filter(({ address }) => address === "host1").map(({ at }) => at)).toEqual([
    1_500, 11_500, 21_500, 31_500,
  ]);
  dead.add("host1");
  await clock.advance(11_000);
  expect([...state.view.holds.keys()]).toEqual([second]);
});

test("in a large realm each host probes more rarely: ten times a second by all of them", async () => {
  const { clock, state, probes, preserver } = setup();
  state.countAgents(3_000, clock.now());
  preserver.take(emptied, undefined);
  await clock.advance(301_500);
  expect(probes.filter(({ address }) => address === "host1").map(({ at }) => at)).toEqual([1_500, 301_500]);
});

test("what the registry has again is probed no more", async () => {
  const { clock, probes, preserver } = setup();
  preserver.take(emptied, undefined);
  preserver.take({ ...full, generation: 2, revision: 2 }, undefined);
  await clock.advance(60_000);
  expect(probes).toEqual([]);
  expect(clock.pending).toBe(0);
});

test("a hold ends after ten minutes when others are usable", async () => {
  const { clock, state, preserver } = setup();
  preserver.take(
    { ...snapshotOf(11, [instanceOf(second)]), removed: [{ id: first, reason: "expired", revision: 11 }] },
    undefined,
  );
  await clock.advance(595_000);
  expect(state.view.holds.size).toBe(1);
  await clock.advance(10_000);
  expect(state.view.holds.size).toBe(0);
  preserver.stop();
  expect(clock.pending).toBe(0);
});
