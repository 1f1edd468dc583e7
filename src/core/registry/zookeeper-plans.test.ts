import { describe, expect, test } from "bun:test";
import { errorCode } from "../lib/errors.ts";
import { registrationFromPut } from "../model/instance.ts";
import type { InstanceDecision, InstanceRecord } from "./live-store.ts";
import type { Op } from "./zookeeper-client.ts";
import { FakeZooKeeper } from "./zookeeper.fixture.ts";
import { REGISTRY_ROOTS } from "./zookeeper-nodes.ts";
import {
  type Find,
  planDecision,
  planDeleteService,
  planPurge,
  planRestore,
  planVersion,
  transactionsOf,
} from "./zookeeper-plans.ts";
import { ZooKeeperTree } from "./zookeeper-tree.ts";

const registration = (weight = 100) => registrationFromPut("web", "a", { port: 5000, weight });
const putDecision = (enabled = true, weight = 100): InstanceDecision => ({
  kind: "put",
  registration: registration(weight),
  enabled,
});
const known = (enabled = true, weight = 100): InstanceRecord => ({ registration: registration(weight), enabled });

/** A registry in memory, and a mirror of it as it is now. */
async function world(...ops: readonly Op[]): Promise<{ server: FakeZooKeeper; find: () => Promise<Find> }> {
  const server = new FakeZooKeeper();
  for (const root of ["hosts", "removed", "definitions", "settings"]) {
    server.commit([{ kind: "create", path: `/${root}`, data: "" }]);
  }
  server.commit([{ kind: "create", path: "/generation", data: "1" }]);
  server.commit([{ kind: "create", path: "/definitions/web", data: "1" }]);
  if (ops.length > 0) server.commit(ops);
  const find = async (): Promise<Find> => {
    const nothing = (): undefined => undefined;
    const tree = new ZooKeeperTree({
      roots: REGISTRY_ROOTS,
      onTouched: nothing,
      onSettled: nothing,
      onMissing: nothing,
    });
    const wire = server.connect(nothing);
    tree.begin(wire);
    while (wire.busy) {
      wire.look();
      await wire.receive();
    }
    return (path) => tree.find(path);
  };
  return { server, find };
}

const texts = (server: FakeZooKeeper, below: string): Record<string, string> =>
  Object.fromEntries(
    server.paths.filter((path) => path.startsWith(`${below}/`)).map((path) => [path, server.get(path)?.data ?? ""]),
  );

const create = (path: string, data = ""): Op => ({ kind: "create", path, data });
const instanceOps = [
  create("/hosts/web"),
  create("/hosts/web/a", "5000"),
  create("/hosts/web/a/enabled", "True"),
  create("/hosts/web/a/meta", "{}"),
];

describe("a decision", () => {
  test("of each kind writes what it says, in one transaction", async () => {
    const { server, find } = await world();
    const obey = async (current: InstanceRecord | undefined, decision: InstanceDecision): Promise<void> => {
      server.commit(planDecision(await find(), "web", "a", current, decision));
    };
    await obey(undefined, putDecision());
    expect(Object.keys(texts(server, "/hosts"))).toEqual([
      "/hosts/web",
      "/hosts/web/a",
      "/hosts/web/a/enabled",
      "/hosts/web/a/meta",
    ]);
    await obey(known(), { kind: "intend", enabled: false });
    expect(server.get("/hosts/web/a/enabled")?.data).toBe("False");
    await obey(known(false), { kind: "remove", reason: "expired", forget: false });
    expect(texts(server, "/hosts")).toEqual({ "/hosts/web": "", "/hosts/web/a": "", "/hosts/web/a/enabled": "False" });
    expect(texts(server, "/removed")).toEqual({ "/removed/web": "", "/removed/web/a": "expired" });
    await obey({ registration: undefined, enabled: false }, putDecision(false));
    expect(texts(server, "/removed")).toEqual({ "/removed/web": "" });
    await obey(known(false), { kind: "remove", reason: "deregistered", forget: true });
    expect(texts(server, "/hosts")).toEqual({ "/hosts/web": "" });
    expect(server.get("/removed/web/a")?.data).toBe("deregistered");
  });

  test("that changes nothing has no steps", async () => {
    const { find } = await world(...instanceOps);
    const now = await find();
    const nothing = (current: InstanceRecord | undefined, decision: InstanceDecision) =>
      expect(planDecision(now, "web", "a", current, decision)).toEqual([]);
    nothing(known(), putDecision());
    nothing(known(), { kind: "keep" });
    nothing(known(), { kind: "intend", enabled: true });
    nothing(undefined, { kind: "remove", reason: "expired", forget: true });
    nothing({ registration: undefined, enabled: false }, { kind: "remove", reason: "expired", forget: false });
  });

  test("keeps the spelling of what somebody wrote by hand", async () => {
    const { server, find } = await world(...instanceOps.slice(0, 2), create("/hosts/web/a/enabled", "false"));
    server.commit([{ kind: "set", path: "/hosts/web/a", data: " 5000 " }]);
    server.commit(planDecision(await find(), "web", "a", known(false), putDecision(false, 7)));
    expect([server.get("/hosts/web/a")?.data, server.get("/hosts/web/a/enabled")?.data]).toEqual([" 5000 ", "false"]);
  });

  // everything that the decision saw, changed by somebody else in the meantime
  test.each<[string, InstanceDecision, Op]>([
    ["put", putDecision(true, 7), { kind: "set", path: "/hosts/web/a", data: "1" }],
    ["put", putDecision(true, 7), { kind: "set", path: "/hosts/web/a/enabled", data: "False" }],
    ["put", putDecision(true, 7), { kind: "set", path: "/hosts/web/a/meta", data: "{ }" }],
    ["put", putDecision(true, 7), { kind: "remove", path: "/definitions/web" }],
    ["intend", { kind: "intend", enabled: false }, { kind: "set", path: "/hosts/web/a/enabled", data: "x" }],
    ["intend", { kind: "intend", enabled: false }, { kind: "set", path: "/hosts/web/a", data: "" }],
    [
      "remove",
      { kind: "remove", reason: "expired", forget: false },
      { kind: "set", path: "/hosts/web/a/enabled", data: "False" },
    ],
    [
      "remove",
      { kind: "remove", reason: "expired", forget: false },
      { kind: "set", path: "/hosts/web/a/meta", data: "{ }" },
    ],
    ["remove", { kind: "remove", reason: "expired", forget: false }, create("/removed/web")],
  ])("to %s %# fails when somebody was first, and then nothing is written", async (_, decision, first) => {
    const { server, find } = await world(...instanceOps);
    const ops = planDecision(await find(), "web", "a", known(), decision);
    server.commit([first]);
    const before = texts(server, "/hosts");
    expect(() => server.commit(ops)).toThrow();
    expect(texts(server, "/hosts")).toEqual(before);
  });
});

describe("the end of a service", () => {
  test("takes all of it, and leaves the reasons", async () => {
    const { server, find } = await world(
      ...instanceOps,
      create("/hosts/web/b"),
      create("/hosts/web/b/enabled", "False"),
    );
    const groups = planDeleteService(await find(), (id) => id === "web/a", "web", true);
    for (const transaction of transactionsOf(groups)) server.commit(transaction);
    expect([texts(server, "/hosts"), texts(server, "/definitions")]).toEqual([{}, {}]);
    expect(texts(server, "/removed")).toEqual({ "/removed/web": "", "/removed/web/a": "deregistered" });
    expect(planDeleteService(await find(), () => false, "web", true)).toEqual([]);
  });

  test("fails when an instance came in between, also the first of all", async () => {
    const { server, find } = await world();
    const groups = planDeleteService(await find(), () => false, "web", false);
    server.commit(planDecision(await find(), "web", "a", undefined, putDecision()));
    expect(() => server.commit(groups.flat())).toThrow("node_exists");
  });
});

test("a number moves only from where it was seen", async () => {
  const { server, find } = await world();
  const node = (await find())("/definitions/web");
  expect(() => planVersion(node, "/definitions/web", "the definition of web", 1, 2, undefined)).toThrow(
    "is at version 1, not none",
  );
  const ops = planVersion(node, "/definitions/web", "the definition of web", 1, 2, 1);
  server.commit(ops);
  expect(() => server.commit(ops)).toThrow("bad_version");
  expect(planVersion(node, "/definitions/web", "the definition of web", 2, 2, 2)).toEqual([]);
});

test("a restore makes exactly what the backup says, whatever was there, and a second one finds nothing to do", async () => {
  const { server, find } = await world(
    ...instanceOps,
    create("/hosts/web/stranger", "x"),
    create("/hosts/web/stranger/note", "mine"),
    create("/hosts/old"),
    create("/hosts/old/x", "1"),
    create("/removed/web"),
    create("/removed/web/z", "expired"),
    create("/definitions/old", "9"),
    create("/settings/web", "4"),
  );
  const content = {
    definitions: new Map([
      ["web", 3],
      ["api", 1],
    ]),
    settings: new Map([["api", 2]]),
    instances: [{ ...registration(7), enabled: false }],
    away: [{ service: "api", instance: "b" }],
  };
  for (const transaction of transactionsOf(planRestore(await find(), content))) server.commit(transaction);
  const { "/hosts/web/a/meta": meta, ...rest } = texts(server, "/hosts");
  expect(JSON.parse(meta ?? "")).toMatchObject({ weight: 7 });
  expect(rest).toEqual({
    "/hosts/api": "",
    "/hosts/api/b": "",
    "/hosts/api/b/enabled": "False",
    "/hosts/old": "",
    "/hosts/web": "",
    "/hosts/web/a": "5000",
    "/hosts/web/a/enabled": "False",
    // somebody's own: no instance any more, and his note stays
    "/hosts/web/stranger": "",
    "/hosts/web/stranger/note": "mine",
  });
  expect(texts(server, "/definitions")).toEqual({ "/definitions/api": "1", "/definitions/web": "3" });
  expect(texts(server, "/settings")).toEqual({ "/settings/api": "2" });
  expect(texts(server, "/removed")).toEqual({ "/removed/web": "" });
  expect(planRestore(await find(), content).filter((group) => group.some(({ kind }) => kind !== "set"))).toEqual([]);
});

test("old removals go, and those of instances that are there", async () => {
  const { find } = await world(
    create("/removed/web"),
    create("/removed/web/a", "expired"),
    create("/removed/web/b", "expired"),
  );
  const now = await find();
  const paths = (groups: readonly (readonly Op[])[]) => groups.flat().map(({ path }) => path);
  expect(paths(planPurge(now, 1, () => false))).toEqual(["/removed/web/a", "/removed/web/b"]);
  expect(paths(planPurge(now, 0, (id) => id === "web/b"))).toEqual(["/removed/web/b"]);
});

test("transactions stay below what ZooKeeper takes, and no group is split", () => {
  const groups = Array.from({ length: 1_000 }, (_, index) => [
    create(`/a/${index}`, "x".repeat(1_000)),
    create(`/b/${index}`),
  ]);
  const transactions = transactionsOf(groups);
  expect(transactions.flat()).toEqual(groups.flat());
  expect(transactions.length).toBeGreaterThan(3);
  for (const transaction of transactions) {
    expect(transaction.length % 2).toBe(0);
    expect(JSON.stringify(transaction).length).toBeLessThan(500_000);
  }
  expect(transactionsOf([])).toEqual([]);
});

test("a decision about what is not there is refused in words", async () => {
  const { find } = await world({ kind: "remove", path: "/definitions/web" });
  const now = await find();
  const refusal = (decision: InstanceDecision): string | undefined => {
    try {
      planDecision(now, "web", "a", undefined, decision);
    } catch (error) {
      return errorCode(error);
    }
    return undefined;
  };
  expect(refusal(putDecision())).toBe("conflict");
  expect(refusal({ kind: "intend", enabled: false })).toBe("not_found");
});
