// A person with zkCli.sh: what he creates, sets and deletes takes effect like any other write, and what makes no sense is
// named and left alone.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { errorCode } from "../core/lib/errors.ts";
import { type Instance, registrationFromPut } from "../core/model/instance.ts";
import type { LiveChange } from "../core/registry/live-store.ts";
import type { ZooKeeperLive } from "../core/registry/zookeeper-live.ts";
import { eventually } from "./process.ts";
import {
  freshChroot,
  type Hand,
  openHand,
  type SharedZooKeeper,
  shareZooKeeper,
  storeOn,
  zkCli,
} from "./zookeeper-kit.ts";

let zookeeper: SharedZooKeeper;
let root: Hand;
let chroot: string;
let hand: Hand;
let live: ZooKeeperLive;
let changes: LiveChange[];

beforeAll(async () => {
  zookeeper = await shareZooKeeper(1);
  root = await openHand(zookeeper.servers);
}, 60_000);
afterAll(async () => {
  await root.close();
  await zookeeper.stop();
});

beforeEach(async () => {
  chroot = await freshChroot(root);
  hand = await openHand(zookeeper.servers, chroot);
  live = storeOn(zookeeper.servers + chroot);
  await live.open();
  changes = [];
  live.onChange((change) => changes.push(change));
  await live.setDefinition("web", 1, undefined);
});
afterEach(async () => {
  await live.close();
  await hand.close();
});

const instance = (id: string): Instance | undefined => live.state().instances.get(id);
const put = (service: string, name: string, weight = 100) =>
  live.updateInstance(service, name, (current) => ({
    kind: "put",
    registration: registrationFromPut(service, name, { port: 5000, weight, zone: "a" }),
    enabled: current?.enabled ?? true,
  }));
/** Resolves when the store shows what was written up to this place in the log. */
const shows = (zxid: number): Promise<void> =>
  eventually("the store shows it", () => expect(live.state().revision).toBeGreaterThanOrEqual(zxid));

test("zkCli.sh creates, sets and deletes, and the store follows", async () => {
  const zkCliHere = (...lines: readonly string[]) => zkCli(zookeeper.servers + chroot, ...lines);
  await zkCliHere("create /hosts/web", "create /hosts/web/host001.runscope.com 5000");
  await eventually("it is registered", () => expect(instance("web/host001.runscope.com")).toBeDefined());
  expect(instance("web/host001.runscope.com")).toEqual({
    ...registrationFromPut("web", "host001.runscope.com", { port: 5000 }),
    enabled: true,
  });
  await zkCliHere(
    "create /hosts/web/host001.runscope.com/enabled False",
    `create /hosts/web/host001.runscope.com/meta '{"weight": 7, "zone": "b"}'`,
    "set /hosts/web/host001.runscope.com 5001",
  );
  await eventually("it is disabled", () => expect(instance("web/host001.runscope.com")?.weight).toBe(7));
  expect(instance("web/host001.runscope.com")).toMatchObject({ enabled: false, port: 5001, zone: "b" });
  await zkCliHere("deleteall /hosts/web/host001.runscope.com");
  await eventually("it is gone", () => expect(instance("web/host001.runscope.com")).toBeUndefined());
  // nobody said why
  const removal = changes.findLast((change) => change.kind === "change" && change.instances.delete.length > 0);
  expect(removal?.kind === "change" && removal.instances.delete).toEqual([{ id: "web/host001.runscope.com" }]);
  expect(live.state().removed.size).toBe(0);
}, 30_000);

describe("the layout", () => {
  test("is the one that outside programs rely on", async () => {
    await put("web", "host001:5000", 7);
    await live.claimLease({ host: "host001", boot: "b", zone: "z", version: "v" });
    await live.announce("http://127.0.0.1:7400");
    await live.setSettings("web", 3, undefined);
    expect(await hand.children("/")).toEqual([
      "agents",
      "atlases",
      "definitions",
      "generation",
      "hosts",
      "removed",
      "settings",
    ]);
    expect(await hand.read("/hosts/web/host001:5000")).toBe("5000");
    expect(await hand.read("/hosts/web/host001:5000/enabled")).toBe("True");
    expect(JSON.parse((await hand.read("/hosts/web/host001:5000/meta")) ?? "")).toEqual({
      address: "host001",
      weight: 7,
      zone: "a",
      version: "",
      agent: null,
      healthy: null,
      draining: false,
    });
    expect([await hand.read("/definitions/web"), await hand.read("/settings/web")]).toEqual(["1", "3"]);
    expect(await hand.read("/generation")).toBe(String(live.state().generation));
    expect(JSON.parse((await hand.read("/agents/host001")) ?? "")).toEqual({
      boot: "b",
      zone: "z",
      version: "v",
      replica: live.replica,
    });
    expect(await hand.read(`/atlases/${live.replica}`)).toBe("http://127.0.0.1:7400");
    await live.updateInstance("web", "host001:5000", () => ({ kind: "remove", reason: "expired", forget: false }));
    expect(await hand.read("/hosts/web/host001:5000")).toBeUndefined();
    expect(await hand.read("/removed/web/host001:5000")).toBe("expired");
    await put("web", "host001:5000");
    expect(await hand.read("/removed/web/host001:5000")).toBeUndefined();
  });

  test("a disabled instance that left keeps its node, empty", async () => {
    await put("web", "a");
    await hand.set("/hosts/web/a/enabled", "False");
    await live.updateInstance("web", "a", () => ({ kind: "remove", reason: "deregistered", forget: false }));
    expect([await hand.read("/hosts/web/a"), await hand.read("/hosts/web/a/enabled")]).toEqual(["", "False"]);
    expect(await hand.read("/hosts/web/a/meta")).toBeUndefined();
    expect(live.away()).toEqual([{ service: "web", instance: "a" }]);
  });
});

test.each([
  ["False", false],
  ["false", false],
  ["0", false],
  [" False\n", false],
  ["True", true],
  ["true", true],
  ["1", true],
  ["", true],
])("enabled set to %j means %p", async (text, enabled) => {
  await put("web", "a");
  await shows(await hand.set("/hosts/web/a/enabled", text));
  expect(instance("web/a")?.enabled).toBe(enabled);
  // however it is spelled, writing the same again writes nothing
  expect(await put("web", "a")).toMatchObject({ changed: false });
  expect(await hand.read("/hosts/web/a/enabled")).toBe(text);
});

test("without /enabled it is enabled, without /meta it has the defaults; a registration brings them back", async () => {
  await put("web", "a", 7);
  await hand.set("/hosts/web/a/enabled", "False");
  await hand.remove("/hosts/web/a/enabled");
  await shows(await hand.remove("/hosts/web/a/meta"));
  expect(instance("web/a")).toMatchObject({ enabled: true, weight: 100, zone: "", address: "a" });
  expect(await put("web", "a", 7)).toMatchObject({ changed: true });
  expect(await hand.read("/hosts/web/a/enabled")).toBe("True");
  expect(instance("web/a")).toMatchObject({ weight: 7, zone: "a" });
});

test("an instance made by hand of a service that nobody defined is there; through the API the service comes first", async () => {
  await hand.create("/hosts/other");
  await shows(await hand.create("/hosts/other/a", "5000"));
  expect(instance("other/a")?.port).toBe(5000);
  expect(live.state().definitions.has("other")).toBe(false);
  expect(errorCode(await put("other", "b").catch((error: unknown) => error))).toBe("conflict");
  await live.setDefinition("other", 1, undefined);
  expect(await put("other", "b")).toMatchObject({ changed: true });
});

test("one that is brought back by hand drops the reason of its removal", async () => {
  await put("web", "a");
  await live.updateInstance("web", "a", () => ({ kind: "remove", reason: "deregistered", forget: false }));
  expect(live.state().removed.size).toBe(1);
  await shows(await hand.create("/hosts/web/a", "5000"));
  expect(live.state().removed.size).toBe(0);
  await live.purge();
  expect(await hand.read("/removed/web/a")).toBeUndefined();
  await shows(await hand.remove("/hosts/web/a"));
  expect(changes.at(-1)).toMatchObject({ kind: "change", instances: { delete: [{ id: "web/a" }] } });
  expect(live.state().removed.size).toBe(0);
});

describe("what makes no sense", () => {
  test.each([
    ["/hosts/web/a", "http", "not a port"],
    ["/hosts/web/a", "70000", "not a port"],
    ["/hosts/web/a", "-1", "not a port"],
    ["/hosts/web/a/enabled", "perhaps", "neither True nor False"],
    ["/hosts/web/a/meta", "{weight: 5}", "not JSON"],
    ["/hosts/web/a/meta", "[]", "keys and values"],
    ["/hosts/web/a/meta", '{"weight": 1000}', "weight"],
    ["/hosts/web/a/meta", '{"address": "no host"}', "address"],
    ["/hosts/web/a/meta", '{"zone": "a b; c"}', "zone"],
    ["/hosts/web/a/meta", "\u0000\u0001\ufffd", "not JSON"],
  ])("in %s (%j) is told, and what was stays until it is mended", async (path, text, told) => {
    await put("web", "a", 7);
    const before = instance("web/a");
    const good = (await hand.read(path)) ?? "";
    await shows(await hand.set(path, text));
    expect(instance("web/a")).toEqual(before as Instance);
    expect(live.problems()).toHaveLength(1);
    expect(live.problems()[0]).toStartWith(`${path} `);
    expect(live.problems()[0]).toContain(told);
    expect(live.degraded()).toBeUndefined();
    await shows(await hand.set(path, good));
    expect(live.problems()).toEqual([]);
    expect(instance("web/a")).toEqual(before as Instance);
  });

  test.each([
    ["/hosts/Web", ""],
    ["/hosts/web/no host", "5000"],
    ["/hosts/web/a/enable", "False"],
    ["/removed/web/b", "because"],
    ["/definitions/other", "first"],
    ["/definitions/other", "0"],
    ["/definitions/NO", "1"],
    ["/settings/other", "x"],
    ["/agents/host", "not JSON"],
    ["/agents/no host", "{}"],
    ["/agents/host2", '{"boot": 1}'],
    ["/atlases/somebody", "nowhere"],
  ])("at %s (%j) is told and ignored", async (path, text) => {
    await put("web", "a");
    await hand.create("/removed/web");
    const { instances, definitions } = live.state();
    const { leases, replicas } = { leases: live.leases(), replicas: live.replicas() };
    await hand.create(path, text);
    await eventually("it is told", () => expect(live.problems().join()).toContain(`${path} `));
    expect(live.state().instances).toEqual(instances);
    expect(live.state().definitions).toEqual(definitions);
    expect(live.state().removed.size).toBe(0);
    expect([live.leases(), live.replicas()]).toEqual([leases, replicas]);
    expect(live.degraded()).toBeUndefined();
    await hand.remove(path);
    await eventually("it is forgotten", () => expect(live.problems()).toEqual([]));
  });

  test("does not keep Atlas from starting, nor the API from mending or removing it", async () => {
    await put("web", "a", 7);
    await put("web", "b");
    await hand.set("/hosts/web/a/meta", "{");
    await hand.set("/hosts/web/b", "five thousand");
    await hand.create("/hosts/web/b/note", "mine");
    await live.close();
    live = storeOn(zookeeper.servers + chroot);
    await live.open();
    expect(live.problems()).toHaveLength(3);
    // its port can be read, so it stays; the other has none
    expect(instance("web/a")).toMatchObject({ port: 5000, weight: 100 });
    expect(instance("web/b")).toBeUndefined();
    await put("web", "a", 7);
    await put("web", "b", 9);
    expect(instance("web/a")?.weight).toBe(7);
    expect(instance("web/b")).toMatchObject({ port: 5000, weight: 9 });
    await live.updateInstance("web", "b", () => ({ kind: "remove", reason: "deregistered", forget: true }));
    expect(instance("web/b")).toBeUndefined();
    // what somebody keeps there is his
    expect(await hand.read("/hosts/web/b/note")).toBe("mine");
    await live.deleteService("web", { force: true });
    expect(live.state().definitions.size).toBe(0);
  });
});

test("directories deleted by hand come back, and what was in them is gone without a reason", async () => {
  await put("web", "a");
  await put("web", "b");
  const { generation, revision } = live.state();
  await zkCli(zookeeper.servers + chroot, "deleteall /hosts", "deleteall /agents", "delete /settings");
  await eventually("they are back", async () => expect(await hand.children("/")).toHaveLength(7));
  await eventually("nothing is registered", () => expect(live.state().instances.size).toBe(0));
  expect(live.state()).toMatchObject({ generation });
  expect(live.state().revision).toBeGreaterThan(revision);
  await put("web", "a");
  await live.claimLease({ host: "a", boot: "1", zone: "", version: "" });
  await hand.remove("/generation");
  await eventually("a new generation", () => expect(live.state().generation).toBeGreaterThan(generation));
  expect(await hand.read("/generation")).toBe(String(live.state().generation));
  expect(changes.at(-1)?.kind).toBe("reset");
  // nobody turns it back, nor into nonsense
  await hand.set("/generation", "12");
  await eventually("the number is mended", async () => {
    expect(Number(await hand.read("/generation"))).toBeGreaterThan(generation + 1);
    expect(String(live.state().generation)).toBe((await hand.read("/generation")) ?? "");
  });
});

describe("leases", () => {
  test("one that somebody deletes comes back: its agent is here", async () => {
    await live.claimLease({ host: "a", boot: "1", zone: "", version: "" });
    await hand.remove("/agents/a");
    await eventually("it is back", async () => expect(await hand.read("/agents/a")).toBeDefined());
    expect(live.leases().get("a")?.boot).toBe("1");
  });

  test("one that somebody replaces by nonsense of his own comes back, too, and lives no longer than its replica", async () => {
    await live.claimLease({ host: "a", boot: "1", zone: "", version: "" });
    await hand.write({ kind: "remove", path: "/agents/a" }, { kind: "create", path: "/agents/a", data: "mine" });
    await eventually("it is back", async () => expect(await hand.read("/agents/a")).toContain(live.replica));
    await eventually("nothing is told", () => expect(live.problems()).toEqual([]));
    await live.close();
    await eventually("it is gone", async () => expect(await hand.read("/agents/a")).toBeUndefined());
  });

  test("another replica takes a lease over, and the first one cannot release it then", async () => {
    const other = storeOn(zookeeper.servers + chroot);
    await other.open();
    try {
      for (let round = 0; round < 20; round += 1) {
        const [from, to] = round % 2 === 0 ? [live, other] : [other, live];
        await from.claimLease({ host: "a", boot: String(round), zone: "", version: "" });
        // as an agent that moves: its old stream ends while its new one begins
        await Promise.all([
          to.claimLease({ host: "a", boot: String(round), zone: "", version: "" }),
          from.releaseLease("a"),
        ]);
        await eventually("both know the holder", () => {
          expect(from.leases().get("a")?.replica).toBe(to.replica);
          expect(to.leases().get("a")?.replica).toBe(to.replica);
        });
        expect(JSON.parse((await hand.read("/agents/a")) ?? "").replica).toBe(to.replica);
      }
    } finally {
      await other.close();
    }
  });
});

describe("opening", () => {
  const refusal = async (servers: string, realm = "local") => {
    try {
      const other = storeOn(servers, { realm });
      await other.open();
      await other.close();
    } catch (error) {
      return error as { code: string; message: string; hint: string };
    }
    throw new Error("this should have been refused");
  };

  test("a chroot that does not exist is named, with the command that makes it, and nothing is written", async () => {
    const { code, message, hint } = await refusal(`${zookeeper.servers}/mistyped`);
    expect(code).toBe("store_chroot");
    expect(message).toContain("/mistyped");
    expect(hint).toContain(`zkCli.sh -server ${zookeeper.servers} create /mistyped`);
    expect(await root.children("/")).not.toContain("mistyped");
    const deep = await refusal(`${zookeeper.servers}/deep/down`);
    expect(deep.hint).toContain("create /deep\\ncreate /deep/down");
  });

  test("another realm's chroot is refused", async () => {
    const { code, message } = await refusal(zookeeper.servers + chroot, "prod");
    expect(code).toBe("store_realm");
    expect(message).toContain("realm local, not prod");
  });

  test("directories that somebody made by hand are taken as they are", async () => {
    const prepared = await freshChroot(root);
    for (const name of ["hosts", "agents", "definitions"]) await root.create(`${prepared}/${name}`);
    const other = storeOn(zookeeper.servers + prepared);
    await other.open();
    expect(await root.read(`${prepared}/hosts`)).toBe("local");
    await other.close();
  });

  test.each(["", "127.0.0.1", "127.0.0.1:2181/", "127.0.0.1:2181/a//b", "127.0.0.1:2181/../x", "a b:1"])(
    "%j is told to be no list of servers, or taken",
    async (servers) => {
      const code = (() => {
        try {
          storeOn(servers);
        } catch (error) {
          return errorCode(error);
        }
        return undefined;
      })();
      expect(code).toBe(servers === "127.0.0.1:2181/" ? undefined : "invalid");
    },
  );
});
