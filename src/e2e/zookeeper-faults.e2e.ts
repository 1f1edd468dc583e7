// The ZooKeeper store while ZooKeeper fails: nodes killed, paused and wiped, wires cut and clogged, sessions that end.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { cp, rm } from "node:fs/promises";
import { join } from "node:path";
import { errorCode } from "../core/lib/errors.ts";
import { registrationFromPut } from "../core/model/instance.ts";
import { comparePositions } from "../core/model/position.ts";
import type { ZooKeeperLive } from "../core/registry/zookeeper-live.ts";
import { eventually, scenario } from "./harness.ts";
import { type ZooKeeperNode, startZooKeeperEnsemble } from "./parts.ts";
import { spawn } from "./process.ts";
import { type TcpProxy, tcpProxy } from "./tcp-proxy.ts";
import {
  digest,
  freshChroot,
  type Hand,
  openHand,
  record,
  type SharedZooKeeper,
  shareZooKeeper,
  storeOn,
} from "./zookeeper-kit.ts";

const put = (live: ZooKeeperLive, name: string, weight = 100, service = "web") =>
  live.updateInstance(service, name, (current) => ({
    kind: "put",
    registration: registrationFromPut(service, name, { port: 5000, weight }),
    enabled: current?.enabled ?? true,
  }));
const remove = (live: ZooKeeperLive, name: string, service = "web") =>
  live.updateInstance(service, name, () => ({ kind: "remove", reason: "deregistered", forget: false }));
const lease = (host: string) => ({ host, boot: "1", zone: "", version: "" });
const isHere = (live: ZooKeeperLive, withinMs?: number): Promise<void> =>
  eventually("the store sees ZooKeeper", () => expect(live.degraded()).toBeUndefined(), withinMs);
const isAway = (live: ZooKeeperLive): Promise<string> =>
  eventually("the store says that ZooKeeper is away", () => {
    const reason = live.degraded();
    if (reason === undefined) throw new Error("it says nothing");
    return reason;
  });

describe("one server behind a wire", () => {
  let zookeeper: SharedZooKeeper;
  let root: Hand;
  let hand: Hand;
  let wire: TcpProxy;
  let live: ZooKeeperLive;
  let sights: number;

  beforeAll(async () => {
    zookeeper = await shareZooKeeper(1);
    root = await openHand(zookeeper.servers);
    wire = await tcpProxy(zookeeper.servers);
  }, 60_000);
  afterAll(async () => {
    await wire.stop();
    await root.close();
    await zookeeper.stop();
  });
  beforeEach(async () => {
    const chroot = await freshChroot(root);
    hand = await openHand(zookeeper.servers, chroot);
    live = storeOn(wire.address + chroot);
    await live.open();
    await live.setDefinition("web", 1, undefined);
    sights = 0;
    live.onSight(() => {
      sights += 1;
    });
  });
  afterEach(async () => {
    wire.mend();
    await live.close();
    await hand.close();
  });

  test("a cut wire: memory serves, writes are refused in words, and what was missed comes as ordinary changes", async () => {
    await put(live, "a");
    await live.claimLease(lease("host1"));
    await live.announce("http://127.0.0.1:7400");
    const before = live.state();
    const told = record(live);
    wire.cut();
    expect(await isAway(live)).toContain("reads and watches are served from memory");
    expect(live.state()).toBe(before);
    expect(live.leases().has("host1")).toBe(true);
    await hand.set("/hosts/web/a/enabled", "False");
    await hand.create("/hosts/web/b", "5001");
    const write = put(live, "c");
    wire.mend();
    // one that began in a short outage waits for its end
    expect(await write).toMatchObject({ changed: true });
    expect([...live.state().instances.keys()].sort()).toEqual(["web/a", "web/b", "web/c"]);
    expect(live.state().instances.get("web/a")?.enabled).toBe(false);
    expect(live.state().generation).toBe(before.generation);
    expect(told.faults).toEqual([]);
    expect(sights).toBe(1);
    expect(live.degraded()).toBeUndefined();
  });

  test("a long outage: writes fail within the time that they are given, later ones at once, and leases are remembered", async () => {
    await live.claimLease(lease("host1"));
    await live.claimLease(lease("host2"));
    wire.cut();
    await isAway(live);
    let started = performance.now();
    const refused: unknown = await put(live, "a").catch((error: unknown) => error);
    expect(errorCode(refused)).toBe("unavailable");
    expect(performance.now() - started).toBeLessThan(6_000);
    started = performance.now();
    expect(errorCode(await put(live, "a").catch((error: unknown) => error))).toBe("unavailable");
    expect(performance.now() - started).toBeLessThan(100);
    expect(refused).toMatchObject({ hint: expect.any(String) });
    await live.claimLease(lease("host3"));
    await live.releaseLease("host2");
    expect([...live.leases().keys()].sort()).toEqual(["host1", "host3"]);
    // the session is over by now
    await eventually("its leases are gone", async () => expect(await hand.children("/agents")).toEqual([]));
    wire.mend();
    await isHere(live);
    expect(await hand.children("/agents")).toEqual(["host1", "host3"]);
    expect([...live.leases().keys()].sort()).toEqual(["host1", "host3"]);
    expect(sights).toBe(1);
    await put(live, "a");
  }, 30_000);

  test("a session that the server ended while the wire was cut: leases and announcement are made again", async () => {
    await live.claimLease(lease("host1"));
    await live.announce("http://127.0.0.1:7400");
    const seen: string[] = [];
    live.onLeases((leases) => seen.push([...leases.keys()].join()));
    wire.cut();
    await eventually("the session is over", async () => expect(await hand.children("/atlases")).toEqual([]));
    wire.mend();
    await isHere(live);
    expect(await hand.read("/agents/host1")).toContain(live.replica);
    expect(await hand.read(`/atlases/${live.replica}`)).toBe("http://127.0.0.1:7400");
    // nobody saw it vanish
    expect(new Set(seen)).toEqual(new Set(seen.length === 0 ? [] : ["host1"]));
    await live.releaseLease("host1");
    expect(await hand.children("/agents")).toEqual([]);
  }, 20_000);

  test("a new session finds the nodes of its own old one still there, and takes them over", async () => {
    await live.claimLease(lease("host1"));
    await live.announce("http://127.0.0.1:7400");
    // the server keeps the session: only this client believes it is over
    const old = storeOn(zookeeper.servers + hand.chroot, { replica: live.replica });
    await old.open();
    await old.claimLease(lease("host1"));
    await old.announce("http://127.0.0.1:7401");
    await eventually("both see it", () => expect(live.replicas().get(live.replica)).toBe("http://127.0.0.1:7401"));
    wire.cut();
    await isAway(live);
    wire.mend();
    await isHere(live);
    expect(await hand.read(`/atlases/${live.replica}`)).toBe("http://127.0.0.1:7400");
    await old.close();
    await eventually("its own stays", () => expect(live.leases().has("host1")).toBe(true));
    expect(await hand.read("/agents/host1")).toContain(live.replica);
  }, 20_000);

  test("a replica that stood still for longer than its session goes on with a new one", async () => {
    const fixture = join(import.meta.dir, "zookeeper-replica.fixture.ts");
    const child = spawn([process.execPath, fixture, zookeeper.servers + hand.chroot, "sleeper"], {});
    try {
      await eventually("it holds its lease", () => expect(child.output()).toContain("holds"));
      child.signal("SIGSTOP");
      await eventually("its session is over", async () => expect(await hand.children("/agents")).toEqual([]));
      child.signal("SIGCONT");
      await eventually("it sees again", () => expect(child.output()).toContain("sees again"));
      expect(await hand.read("/agents/host1")).toContain("sleeper");
    } finally {
      child.signal("SIGKILL");
      await child.exited;
    }
  }, 20_000);

  test("a server that accepts and says nothing is left, and the store is there again when it speaks", async () => {
    await put(live, "a");
    wire.clog();
    const write = put(live, "b").catch(errorCode);
    await isAway(live);
    await hand.create("/hosts/web/c", "5000");
    wire.mend();
    await isHere(live);
    await write;
    expect(live.state().instances.has("web/c")).toBe(true);
    expect(await put(live, "b")).toBeDefined();
    expect(live.state().instances.has("web/b")).toBe(true);
  }, 20_000);

  test("a slow server is slow, not away", async () => {
    wire.slow(150);
    expect(await put(live, "a")).toMatchObject({ changed: true });
    expect(await remove(live, "a")).toMatchObject({ changed: true });
    expect(live.degraded()).toBeUndefined();
    expect(sights).toBe(0);
  }, 20_000);

  test("a replica that hears late decides by what was acknowledged, not by what it has heard", async () => {
    const other = storeOn(zookeeper.servers + hand.chroot);
    await other.open();
    await put(other, "a");
    await eventually("both show it", () => expect(live.state().instances.has("web/a")).toBe(true));
    wire.slow(50);
    for (const enabled of [false, true]) {
      await other.updateInstance("web", "a", () => ({ kind: "intend", enabled }));
      // as this replica still shows it, there would be nothing to do
      await live.updateInstance("web", "a", () => ({ kind: "intend", enabled: !enabled }));
      expect(live.state().instances.get("web/a")?.enabled).toBe(!enabled);
    }
    await put(other, "b");
    expect(await remove(live, "b")).toMatchObject({ changed: true });
    await other.setDefinition("api", 5, undefined);
    expect(await live.setDefinition("api", 6, 5)).toMatchObject({ changed: true });
    // an agent moves: this replica gives up a lease that is the other's already
    await live.claimLease(lease("host1"));
    const third = storeOn(zookeeper.servers + hand.chroot);
    await third.open();
    await eventually("both show it", () => expect(other.leases().has("host1")).toBe(true));
    const seen: string[] = [];
    third.onLeases((leases) => seen.push(leases.get("host1")?.replica ?? "nobody"));
    await other.claimLease(lease("host1"));
    await live.releaseLease("host1");
    expect(await hand.read("/agents/host1")).toContain(other.replica);
    await eventually("the third one shows it", () => expect(seen.at(-1)).toBe(other.replica));
    expect(seen).not.toContain("nobody");
    await third.close();
    await other.close();
  }, 20_000);

  test("a check of a node that nobody changed yet is one", async () => {
    await hand.create("/fresh", "1");
    expect(await hand.write({ kind: "set", path: "/fresh", data: "2", version: 0 })).toBeGreaterThan(0);
    for (const kind of ["check", "remove"] as const) {
      expect(await hand.write({ kind, path: "/fresh", version: 0 }).catch(errorCode)).toBe("bad_version");
    }
    expect(await hand.write({ kind: "set", path: "/fresh", data: "3", version: 0 }).catch(errorCode)).toBe(
      "bad_version",
    );
    await hand.remove("/fresh");
  });

  test("a service of 1,500 instances: read again after a cut, and removed in pieces that ZooKeeper takes", async () => {
    const names = Array.from({ length: 1_500 }, (_, index) => `host${index}.some-rather-long-domain.example.com:5000`);
    const told = record(live);
    await Promise.all(names.map((name) => put(live, name)));
    // others learn of the first while the last are on their way
    expect(told.states.size).toBeGreaterThan(5);
    const before = live.state();
    wire.cut();
    await isAway(live);
    wire.mend();
    await isHere(live);
    expect(live.state()).toEqual(before);
    await live.deleteService("web", { force: true });
    expect([live.state().instances.size, live.state().removed.size]).toEqual([0, 1_500]);
    expect(await hand.children("/hosts")).toEqual([]);
    expect(told.faults).toEqual([]);
  }, 40_000);

  test("a wire that breaks in the middle of replies, again and again: nothing is misread, no write is lost or doubled", async () => {
    await Promise.all(Array.from({ length: 50 }, (_, index) => put(live, `host${index}`, index)));
    const told = record(live);
    const bumps = Array.from({ length: 30 }, async (_, index) => {
      for (let weight = 100; weight < 105; weight += 1) {
        await eventually("it is written", () => put(live, `host${index}`, weight), 20_000);
      }
    });
    for (let cut = 0; cut < 15; cut += 1) {
      wire.cutAfter(200 + cut * 377);
      await Bun.sleep(100);
    }
    wire.mend();
    await Promise.all(bumps);
    await isHere(live);
    expect(told.faults).toEqual([]);
    for (let index = 0; index < 50; index += 1) {
      expect(live.state().instances.get(`web/host${index}`)?.weight).toBe(index < 30 ? 104 : index);
      const meta = JSON.parse((await hand.read(`/hosts/web/host${index}/meta`)) ?? "") as { weight: number };
      expect(meta.weight).toBe(index < 30 ? 104 : index);
    }
  }, 60_000);

  test("an Atlas that starts while ZooKeeper is away becomes ready by itself, and can be stopped meanwhile", async () => {
    wire.cut();
    const late = storeOn(wire.address + hand.chroot);
    const opening = late.open();
    const given = storeOn(wire.address + hand.chroot);
    const refused = given.open().catch(errorCode);
    await Bun.sleep(500);
    expect(errorCode(await Promise.try(() => late.state()).catch((error: unknown) => error))).toBe("unavailable");
    await given.close();
    expect(await refused).toBe("unavailable");
    wire.mend();
    await opening;
    expect(late.state().definitions.get("web")).toBe(1);
    await late.close();
  }, 20_000);
});

describe("an ensemble of three", () => {
  let zookeeper: SharedZooKeeper;
  let root: Hand;
  let chroot: string;
  let live: ZooKeeperLive;

  beforeAll(async () => {
    zookeeper = await shareZooKeeper(3);
  }, 60_000);
  afterAll(() => zookeeper.stop());
  beforeEach(async () => {
    await zookeeper.serving();
    root = await openHand(zookeeper.servers);
    chroot = await freshChroot(root);
    live = storeOn(zookeeper.servers + chroot);
    await live.open();
    await live.setDefinition("web", 1, undefined);
  }, 40_000);
  afterEach(async () => {
    await live.close();
    await root.close();
  });

  test("the leader is killed: writes go on with the next one", async () => {
    const leader = await zookeeper.leader();
    await put(live, "a");
    await leader.kill();
    await eventually("a write succeeds", () => put(live, "b"), 20_000);
    expect([...live.state().instances.keys()]).toEqual(["web/a", "web/b"]);
    leader.start();
  }, 40_000);

  test("a node that stands still: its clients move to another", async () => {
    await put(live, "a");
    // one of them is the store's
    for (const node of zookeeper.nodes) {
      node.pause();
      await eventually("a write succeeds", () => put(live, "a", Math.floor(Math.random() * 200)), 20_000);
      node.resume();
      await zookeeper.serving();
    }
  }, 60_000);

  test("all nodes down and back: nothing is lost, no lease is missed, the generation stays", async () => {
    await put(live, "a");
    await live.claimLease(lease("host1"));
    const told = record(live);
    const { generation } = live.state();
    const leases: string[] = [];
    live.onLeases((view) => leases.push([...view.keys()].join()));
    await Promise.all(zookeeper.nodes.map((node) => node.kill()));
    await isAway(live);
    expect(live.state().instances.size).toBe(1);
    await Bun.sleep(4_000);
    for (const node of zookeeper.nodes) node.start();
    await isHere(live, 30_000);
    await put(live, "b");
    expect(live.state()).toMatchObject({ generation });
    expect(told.faults).toEqual([]);
    expect(live.leases().has("host1")).toBe(true);
    expect(new Set(leases)).toEqual(new Set(leases.length === 0 ? [] : ["host1"]));
  }, 60_000);

  test("two replicas see the same state at the same position while nodes are killed and paused under random writes", async () => {
    const other = storeOn(zookeeper.servers + chroot);
    await other.open();
    await other.setDefinition("api", 1, undefined);
    await eventually("both begin alike", () => expect(digest(other.state())).toBe(digest(live.state())));
    const stores = [live, other];
    const records = stores.map((store) => record(store));
    const end = Date.now() + 9_000;
    let written = 0;
    const random = (below: number): number => Math.floor(Math.random() * below);
    const writer = async (store: ZooKeeperLive): Promise<void> => {
      while (Date.now() < end) {
        const service = random(2) === 0 ? "web" : "api";
        const name = `host${random(20)}`;
        const write = [
          () => put(store, name, random(200), service),
          () => put(store, name, random(200), service),
          () => remove(store, name, service),
          () =>
            store.updateInstance(service, name, (now) =>
              now ? { kind: "intend", enabled: random(2) === 0 } : { kind: "keep" },
            ),
          () => store.setDefinition(service, 1 + random(1_000), store.state().definitions.get(service)),
        ][random(5)];
        try {
          await write?.();
          written += 1;
        } catch (error) {
          if (!["unavailable", "conflict", "not_found"].includes(errorCode(error) ?? "")) throw error;
        }
      }
    };
    const havoc = async (): Promise<void> => {
      while (Date.now() < end - 2_000) {
        await Bun.sleep(1_000 + random(1_000));
        const node = zookeeper.nodes[random(3)] as ZooKeeperNode;
        if (random(2) === 0) {
          await node.kill();
          node.start();
        } else {
          node.pause();
          await Bun.sleep(500 + random(1_500));
          node.resume();
        }
        await zookeeper.serving();
      }
    };
    await Promise.all([havoc(), ...stores.flatMap((store) => Array.from({ length: 4 }, () => writer(store)))]);
    await Promise.all(stores.map((store) => isHere(store, 20_000)));
    const last = await put(live, "the-last");
    await eventually("the other shows it, too", () => expect(comparePositions(other.state(), last)).toBe(0));
    expect(digest(other.state())).toBe(digest(live.state()));
    const fresh = storeOn(zookeeper.servers + chroot);
    await fresh.open();
    expect(digest(fresh.state())).toBe(digest(live.state()));
    expect(comparePositions(fresh.state(), live.state())).toBe(0);
    expect(records.map(({ faults }) => faults)).toEqual([[], []]);
    const shared = [...(records[0]?.states.keys() ?? [])].filter((position) => records[1]?.states.has(position));
    console.log(
      `${written} writes; positions: ${records.map(({ states }) => states.size).join(", ")}; in common: ${shared.length}`,
    );
    expect(shared.length).toBeGreaterThan(100);
    for (const position of shared)
      expect(records[0]?.states.get(position)).toBe(records[1]?.states.get(position) ?? "");
    expect(records.map(({ resets }) => resets())).toEqual([0, 0]);
    await fresh.close();
    await other.close();
  }, 90_000);
});

describe("a log that goes back", () => {
  scenario(
    "ZooKeeper is wiped: all replicas agree on one new generation, without the chroot having to be made again",
    async (world) => {
      const zookeeper = await startZooKeeperEnsemble(world, 1);
      const [node] = zookeeper.nodes as [ZooKeeperNode];
      const hand = await openHand(zookeeper.servers);
      await hand.create("/realms");
      await hand.create("/realms/local");
      await hand.close();
      const stores = [1, 2, 3].map(() => storeOn(`${zookeeper.servers}/realms/local`, { sessionTimeoutMs: 1_000 }));
      const [live, other] = stores as [ZooKeeperLive, ZooKeeperLive];
      world.defer(() => Promise.all(stores.map((store) => store.close())));
      for (const store of stores) await store.open();
      await live.setDefinition("web", 1, undefined);
      await Promise.all(Array.from({ length: 100 }, (_, index) => put(live, `host${index}`)));
      await live.claimLease(lease("host1"));
      await live.announce("http://127.0.0.1:7400");
      await eventually("the others show it", () => expect(digest(other.state())).toBe(digest(live.state())));
      const before = live.state();
      const records = stores.map((store) => record(store));
      await node.kill();
      await rm(node.dataDir, { recursive: true });
      await Bun.$`mkdir ${node.dataDir}`;
      node.start();
      for (const store of stores) await isHere(store, 30_000);
      expect(live.state().instances.size).toBe(0);
      for (const store of stores) {
        expect(store.state().generation).toBe(live.state().generation);
        expect(store.state().generation).toBeGreaterThan(before.generation);
      }
      expect(live.state().revision).toBeLessThan(before.revision);
      await live.setDefinition("web", 1, undefined);
      await put(other, "a");
      await eventually("they go on together", () => expect(digest(other.state())).toBe(digest(live.state())));
      expect(records.map(({ faults }) => faults)).toEqual([[], [], []]);
      expect(records.map(({ resets }) => resets())).toEqual([1, 1, 1]);
      expect(live.leases().has("host1")).toBe(true);
      await eventually("the others know this one", () => expect(other.replicas().has(live.replica)).toBe(true));
    },
  );

  scenario("ZooKeeper is set back to an older copy: a new generation, and what the copy holds", async (world) => {
    const zookeeper = await startZooKeeperEnsemble(world, 1);
    const [node] = zookeeper.nodes as [ZooKeeperNode];
    const stores = [1, 2].map(() => storeOn(zookeeper.servers, { sessionTimeoutMs: 1_000 }));
    const [live, other] = stores as [ZooKeeperLive, ZooKeeperLive];
    world.defer(() => Promise.all(stores.map((store) => store.close())));
    for (const store of stores) await store.open();
    await live.setDefinition("web", 1, undefined);
    await put(live, "a", 1);
    const kept = live.state();
    await node.kill();
    await cp(node.dataDir, join(world.directory, "copy"), { recursive: true });
    node.start();
    for (const store of stores) await isHere(store, 30_000);
    for (let weight = 2; weight < 30; weight += 1) await put(live, "a", weight);
    await put(live, "b");
    await eventually("the other shows it", () => expect(digest(other.state())).toBe(digest(live.state())));
    const before = live.state();
    const records = stores.map((store) => record(store));
    await node.kill();
    await rm(node.dataDir, { recursive: true });
    await cp(join(world.directory, "copy"), node.dataDir, { recursive: true });
    node.start();
    for (const store of stores) await isHere(store, 30_000);
    expect(digest(live.state())).toBe(digest(kept));
    expect(live.state().generation).toBeGreaterThan(before.generation);
    await eventually("the other shows it", () => expect(comparePositions(other.state(), live.state())).toBe(0));
    await put(live, "c");
    expect(records.map(({ faults }) => faults)).toEqual([[], []]);
    expect(records.map(({ resets }) => resets())).toEqual([1, 1]);
  });
});
