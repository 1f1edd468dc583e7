import { expect, test } from "bun:test";
import { putLocalSchema } from "../core/model/local.ts";
import { emptySnapshot } from "../core/model/snapshot.ts";
import type { ServerStatus } from "../core/haproxy/proxy.ts";
import { instanceOf, snapshotOf } from "./fixture.ts";
import { changeBetween, emptyView, preserve, probed } from "./hold.ts";
import { HostState } from "./host-state.ts";
import { putLocal } from "./local-instance.ts";
import { explain, type WhyInput } from "./why.ts";

const NOW = 50_000;
const server = (instance: string, status: string, check = "check 200, 3 ms"): ServerStatus => ({
  service: "identity",
  instance,
  address: "10.0.0.1",
  port: 5000,
  status,
  check,
  weight: 100,
});

function why(state: HostState, servers: readonly ServerStatus[], more: Partial<WhyInput> = {}) {
  return explain({
    service: "identity",
    state,
    servers,
    connected: true,
    rejected: [],
    lastReload: null,
    notes: [],
    said: () => undefined,
    problem: () => undefined,
    now: NOW,
    ...more,
  });
}
const reasons = (answer: ReturnType<typeof why>): string[][] =>
  answer.servers.map(({ instance, haproxy, because }) => [instance, haproxy, because]);

test("every server says what HAProxy does with it and why", () => {
  const state = new HostState("local", "here");
  state.view = emptyView(
    snapshotOf(7, [
      instanceOf("identity/a:5000"),
      instanceOf("identity/b:5000", { enabled: false }),
      instanceOf("identity/c:5000", { draining: true }),
      instanceOf("identity/d:5000", { healthy: false }),
      instanceOf("identity/e:5000", { healthy: null }),
      instanceOf("billing/z:5000"),
    ]),
  );
  const answer = why(state, [
    server("a:5000", "UP"),
    server("b:5000", "DRAIN"),
    server("c:5000", "DRAIN"),
    server("d:5000", "DOWN", ""),
  ]);
  expect(answer).toMatchObject({ service: "identity", host: "here", known: true, usable: 1, total: 5, revision: 7 });
  expect(reasons(answer)).toEqual([
    ["a:5000", "UP", "check 200, 3 ms"],
    ["b:5000", "DRAIN", "disabled by an operator"],
    ["c:5000", "DRAIN", "draining: the instance is leaving"],
    ["d:5000", "DOWN", "unhealthy, says its host"],
    ["e:5000", "ABSENT", "HAProxy does not have it yet"],
  ]);
});

test("a held instance says what is doubted, what the probe says, and for how long", () => {
  const state = new HostState("local", "here");
  const full = snapshotOf(7, [instanceOf("identity/a:5000"), instanceOf("identity/b:5000")]);
  const removed = [{ id: "identity/a:5000", reason: "expired" as const, revision: 8 }];
  const emptied = { ...snapshotOf(8, []), removed };
  const held = preserve(emptyView(full), changeBetween(full, emptied), "here", NOW - 41_000).view;
  state.view = probed(held, "identity/a:5000", true, NOW).view;
  expect(reasons(why(state, [server("a:5000", "UP"), server("b:5000", "UP")]))).toEqual([
    ["a:5000", "HELD UP", "expired in Atlas, our probe passes, 41 s"],
    ["b:5000", "HELD UP", "vanished from Atlas without a reason, our probe is due, 41 s"],
  ]);
});

test("own instances say what this host's check said, and what Atlas has against them", () => {
  const host = { host: "here", address: "10.0.0.1", zone: "" };
  const local = putLocal(undefined, "identity", "here:5000", putLocalSchema.parse({ port: 5000 }), host, NOW);
  const state = new HostState("local", "here", {
    view: undefined,
    locals: new Map([[local.id, local]]),
    agents: 1,
    disabled: new Set(),
  });
  const answer = why(state, [server("here:5000", "UP", "")], {
    connected: false,
    said: () => "check 200, 1 ms",
    problem: () => "could not reach Atlas",
    notes: ["not following Atlas: no"],
    rejected: [{ service: "identity", error: "line 9" }],
  });
  expect(reasons(answer)).toEqual([["here:5000", "UP", "check 200, 1 ms"]]);
  expect(answer.notes).toEqual([
    "HAProxy refuses its definition, its last good form stays: line 9",
    "here:5000: could not reach Atlas",
    "not following Atlas: no",
  ]);
  expect(answer.atlas.connected).toBe(false);
});

test("an unknown service is said to be unknown", () => {
  const state = new HostState("local", "here");
  state.view = emptyView(emptySnapshot("local"));
  expect(why(state, [])).toMatchObject({ known: false, usable: 0, total: 0, servers: [] });
});

test("a verdict that checks are about to change is said in words", () => {
  const state = new HostState("local", "here");
  state.view = emptyView(snapshotOf(7, [instanceOf("identity/a:5000"), instanceOf("identity/b:5000")]));
  const answer = why(state, [server("a:5000", "UP 1/3", "check 500, 3 ms"), server("b:5000", "DOWN 1/2")]);
  expect(reasons(answer)).toEqual([
    ["a:5000", "UP", "check 500, 3 ms, 1 more failed check and it is down"],
    ["b:5000", "DOWN", "check 200, 3 ms, 1 of 2 passes towards UP"],
  ]);
  expect(answer.usable).toBe(1);
});

test("an instance that was left out is not a refused definition", () => {
  const state = new HostState("local", "here");
  state.view = emptyView(snapshotOf(7, [instanceOf("identity/a:5000")]));
  const rejected = [
    { service: "identity", instance: "a:5000", error: "a:5000 is left out: its address does not resolve" },
  ];
  expect(why(state, [], { rejected }).notes).toEqual(["a:5000 is left out: its address does not resolve"]);
});
