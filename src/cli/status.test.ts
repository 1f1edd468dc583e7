import { describe, expect, test } from "bun:test";
import { type Instance, registrationFromPut } from "../core/model/instance.ts";
import { definitionSchema } from "../core/model/service.ts";
import { emptySnapshot, type Snapshot } from "../core/model/snapshot.ts";
import type { AuditEntry } from "../core/model/answers.ts";
import { formatReport, report } from "./status.ts";

const NOW = Date.parse("2026-01-02T12:00:00.000Z");
const HOURS = 3_600_000;
const info = {
  realm: "prod",
  version: "0.1.0",
  generation: 7,
  revision: 48_213,
  store: "embedded",
  replicas: 3,
  degraded: [],
};

const instance = (id: string, more: Partial<Instance> = {}): Instance => {
  const [service = "", name = ""] = id.split("/");
  return { ...registrationFromPut(service, name, { port: 5004 }), enabled: true, healthy: true, ...more };
};
const agent = (host: string, more = {}) => ({
  host,
  zone: "",
  version: "0.1.0",
  connected: true,
  appliedRevision: 48_213,
  lag: 0,
  rejected: [],
  ...more,
});
const entry = (target: string, hoursAgo: number, more: Partial<AuditEntry> = {}): AuditEntry => ({
  at: new Date(NOW - hoursAgo * HOURS).toISOString(),
  who: "ann",
  from: "127.0.0.1",
  kind: "instance.patch",
  target,
  before: { enabled: true },
  after: { enabled: false },
  ...more,
});
const snapshot: Snapshot = {
  ...emptySnapshot("prod"),
  services: {
    identity: definitionSchema.parse({ owner: "core" }),
    billing: definitionSchema.parse({ owner: "money" }),
    ads: definitionSchema.parse({}),
  },
  instances: [
    ...Array.from({ length: 6 }, (_, index) => instance(`identity/host00${index + 1}:5004`)),
    ...["host005", "host006", "host008"].map((host) => instance(`billing/${host}`)),
    instance("billing/host007", { enabled: false }),
  ],
};

test("a realm looks as the design shows it", () => {
  const agents = [
    ...Array.from({ length: 41 }, (_, index) => agent(`host${String(index + 1).padStart(3, "0")}`)),
    agent("host042", { lag: 2, rejected: [{ service: "x", error: "services/x, line 9\n" }] }),
  ];
  const measured = { ...info, appliedP99Ms: 21 };
  expect(formatReport(report(measured, snapshot, agents, [entry("billing/host007", 2)], NOW))).toBe(
    `
realm prod · revision 48213 · 3 Atlases · 41/42 hosts applied · p99 21 ms
SERVICE    UP    OWNER   NOTE
ads        0/0           no instances
billing    3/4   money   host007 disabled by ann, 2 h
identity   6/6   core
HOST host042  2 behind: HAProxy refused x (services/x, line 9)`.slice(1),
  );
});

test("an empty realm is no riddle", () => {
  expect(formatReport(report(info, emptySnapshot("prod"), [], [], NOW))).toBe(
    "realm prod · revision 48213 · 3 Atlases · no hosts\nno services",
  );
});

test("what Atlas cannot do stands above everything else", () => {
  const text = formatReport(
    report({ ...info, degraded: ["expiry has stopped: 40 of 42 agents are gone"] }, snapshot, [], [], NOW),
  );
  expect(text.split("\n")[1]).toBe("DEGRADED expiry has stopped: 40 of 42 agents are gone");
});

describe("a note on an instance", () => {
  const noteOn = (instances: readonly Instance[], audit: readonly AuditEntry[] = []): readonly string[] | undefined =>
    report(info, { ...snapshot, services: { ads: definitionSchema.parse({}) }, instances }, [], audit, NOW).services[0]
      ?.notes;

  test("says why it gets no requests, gravest first, in order of names", () => {
    expect(
      noteOn([
        instance("ads/d", { healthy: null }),
        instance("ads/c", { draining: true, healthy: false }),
        instance("ads/b", { healthy: false }),
        instance("ads/a", { enabled: false, draining: true }),
      ]),
    ).toEqual(["a disabled", "b fails its check", "c is leaving"]);
  });

  test("has the port only when the host has several", () => {
    const bad = { healthy: false };
    expect(noteOn([instance("ads/a:1", bad), instance("ads/a:2", bad), instance("ads/b:1", bad)])).toEqual([
      "a:1 fails its check",
      "a:2 fails its check",
      "b fails its check",
    ]);
  });

  test("names who disabled it last, when, and why, and leaves out whom nobody knows", () => {
    const off = [instance("ads/a", { enabled: false })];
    const history = [
      entry("ads/a", 1, { kind: "instance.put", before: { enabled: false }, after: { enabled: false } }),
      entry("ads/a", 3, { who: "bob", reason: "new disk" }),
      entry("ads/a", 4, { before: { enabled: false }, after: { enabled: true } }),
      entry("ads/a", 90, { who: "carl" }),
      entry("ads/b", 2),
    ];
    expect(noteOn(off, history)).toEqual(["a disabled by bob, 3 h (new disk)"]);
    expect(noteOn(off, [entry("ads/a", 1, { who: "anonymous", before: null })])).toEqual(["a disabled, 60 min"]);
    expect(noteOn(off, [])).toEqual(["a disabled"]);
    // enabled again by command, and then disabled by a hand in ZooKeeper, which is in no trail
    expect(
      noteOn(off, [entry("ads/a", 1, { before: { enabled: false }, after: { enabled: true } }), ...history]),
    ).toEqual(["a disabled"]);
  });

  test("makes room for others: three, and how many more", () => {
    const many = Array.from({ length: 7 }, (_, index) => instance(`ads/h${index}`, { healthy: false }));
    const found = report(
      info,
      { ...snapshot, services: { ads: definitionSchema.parse({}) }, instances: many },
      [],
      [],
      NOW,
    );
    expect(formatReport(found)).toContain("h0 fails its check; h1 fails its check; h2 fails its check; 4 more");
    expect(found.services[0]?.notes).toHaveLength(7);
  });
});

test("a host is noted when it is behind, gone, or refused something", () => {
  const hosts = [
    agent("a"),
    agent("b", { connected: false, lag: 3 }),
    agent("c", { appliedRevision: null, lag: null }),
    agent("d", { lag: 1 }),
    agent("e", {
      rejected: [
        { service: "x", error: "no" },
        { service: "y", error: "no" },
      ],
    }),
    agent("f", { connected: false }),
    agent("g", { rejected: [{ service: "x", instance: "x1", error: "x1 is left out: it does not resolve" }] }),
  ];
  const found = report(info, snapshot, hosts, [], NOW);
  expect(found.hosts).toEqual({ applied: 2, total: 7 });
  expect(found.troubled).toEqual([
    { host: "b", note: "not connected, 3 behind" },
    { host: "c", note: "has applied nothing yet" },
    { host: "d", note: "1 behind" },
    { host: "e", note: "HAProxy refused x (no), and 1 service more" },
    { host: "f", note: "not connected" },
    { host: "g", note: "x: x1 is left out: it does not resolve" },
  ]);
});
