import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { errorCode } from "../core/lib/errors.ts";
import type { Stores } from "../core/registry/stores.ts";
import { ACTOR, createWorld, settle, type World } from "./fixture.ts";

let world: World;
beforeEach(async () => {
  world = await createWorld();
});
afterEach(async () => {
  await world.dispose();
});

/** An agent with an open stream. `cuts` has why it was ended by us. */
async function connect(host: string, boot = "boot-1") {
  const cuts: string[] = [];
  let leave = (): void => undefined;
  leave = await world.leases.connect({ host, boot, zone: "z", version: "1" }, (reason) => {
    cuts.push(reason);
    leave();
  });
  return { cuts, leave };
}
const ack = (host: string) => {
  const { generation, revision } = world.registry.state();
  world.agents.acknowledge(host, { generation, revision, rejected: [], reloaded: false, tookMs: 1 });
  world.leases.acked(host);
};
const instances = (): string[] => [...world.registry.state().instances.keys()].sort();
const reasons = (): unknown[] => [...world.registry.state().removed.values()].map(({ id, reason }) => [id, reason]);

describe("a lease", () => {
  test("keeps an agent's instances; 30 s after it is gone they expire, with the reason, and others stay", async () => {
    const { leave } = await connect("a");
    await world.put("identity", "a:1", { agent: "a" });
    await world.put("identity", "b:1");
    leave();
    await world.pass(29_999);
    expect(instances()).toEqual(["identity/a:1", "identity/b:1"]);
    await world.pass(1);
    expect(instances()).toEqual(["identity/b:1"]);
    expect(reasons()).toEqual([["identity/a:1", "expired"]]);
    expect(world.agents.list()).toEqual([]);
    expect((await world.meta.audit(1))[0]).toMatchObject({
      who: "atlas",
      kind: "instance.expire",
      target: "identity/a:1",
    });
  });

  test("an agent that returns within its grace loses nothing", async () => {
    const first = await connect("a");
    await world.put("identity", "a:1", { agent: "a" });
    first.leave();
    await world.pass(29_000);
    expect(world.agents.list()).toMatchObject([{ host: "a", connected: false }]);
    const again = await connect("a");
    await world.pass(29_000);
    expect(world.agents.list()).toMatchObject([{ host: "a", connected: true }]);
    again.leave();
    await world.pass(29_000);
    expect(instances()).toEqual(["identity/a:1"]);
  });

  test("an operator's intent outlives expiry", async () => {
    await world.put("identity", "a:1", { agent: "a" });
    await world.operations.patchInstance("identity", "a:1", { enabled: false }, ACTOR);
    await world.pass(30_000);
    expect(instances()).toEqual([]);
    await world.put("identity", "a:1", { agent: "a" });
    expect(world.registry.state().instances.get("identity/a:1")?.enabled).toBe(false);
  });

  test("instances of an agent that never came expire as well", async () => {
    await world.put("identity", "a:1", { agent: "a" });
    expect(world.agents.list()).toMatchObject([{ host: "a", connected: false, appliedRevision: null }]);
    await world.pass(30_000);
    expect(instances()).toEqual([]);
  });

  test("a second boot of a host is refused while the first is live, and takes over when it is not", async () => {
    const first = await connect("a", "boot-1");
    expect(errorCode(await connect("a", "boot-2").catch((error: unknown) => error))).toBe("conflict");
    await world.pass(20_000);
    ack("a");
    await world.pass(20_000);
    expect(errorCode(await connect("a", "boot-2").catch((error: unknown) => error))).toBe("conflict");
    expect(first.cuts).toEqual([]);
    first.leave();
    await connect("a", "boot-2");
    expect(world.live.leases().get("a")?.boot).toBe("boot-2");
  });

  test("the same boot may open a new stream: the old one ends, and its end takes nothing away", async () => {
    const first = await connect("a");
    await connect("a");
    expect(first.cuts).toEqual(["the same agent opened a new stream"]);
    first.leave();
    expect(world.agents.list()).toMatchObject([{ connected: true }]);
  });

  test("an agent that acks nothing for 30 s is cut off: its host may be dead behind an open connection", async () => {
    const { cuts } = await connect("a");
    await world.put("identity", "a:1", { agent: "a" });
    await world.pass(25_000);
    ack("a");
    await world.pass(29_999);
    expect(cuts).toEqual([]);
    await world.pass(1);
    expect(cuts).toEqual(["no ack for 30 s"]);
    await world.pass(30_000);
    expect(instances()).toEqual([]);
  });

  test("a clock that is set neither saves a silent agent nor cuts off one that acks", async () => {
    let offset = 0;
    const { clock } = world;
    await world.dispose();
    const steady = clock.now.bind(clock);
    world = await createWorld({ clock: Object.assign(clock, { now: () => steady() + offset }) });
    const silent = await connect("a");
    const lively = await connect("b");
    offset = -3_600_000;
    await world.pass(20_000);
    ack("b");
    offset = 3_600_000;
    await world.pass(10_000);
    expect([silent.cuts, lively.cuts]).toEqual([["no ack for 30 s"], []]);
  });

  test("an ack without a stream is a sign of life", async () => {
    const { leave } = await connect("a");
    await world.put("identity", "a:1", { agent: "a" });
    leave();
    await world.pass(20_000);
    ack("a");
    await world.pass(20_000);
    expect(instances()).toEqual(["identity/a:1"]);
    await world.pass(10_000);
    expect(instances()).toEqual([]);
  });

  test("an ack from ahead of the registry, as after a store was set back, says nothing", async () => {
    await connect("a");
    await world.put("identity", "x");
    const { generation, revision } = world.registry.state();
    const future = { generation, revision: revision + 1, rejected: [], reloaded: false, tookMs: 1 };
    world.agents.acknowledge("a", future);
    expect(world.agents.list()).toMatchObject([{ appliedRevision: null, lag: null }]);
    await world.put("identity", "y");
    expect(world.waits.progress(world.registry.state(), undefined)).toMatchObject({ applied: 0, pending: ["a"] });
  });

  test("an ack of an agent nobody knows is refused", () => {
    expect(() => ack("nobody")).toThrow("no agent of nobody");
  });

  test("what an agent applied is forgotten with a new boot, not with a new stream", async () => {
    const first = await connect("a", "boot-1");
    await world.put("identity", "x");
    ack("a");
    first.leave();
    const second = await connect("a", "boot-1");
    expect(world.agents.list()).toMatchObject([{ appliedRevision: 2, lag: 0 }]);
    second.leave();
    await connect("a", "boot-2");
    expect(world.agents.list()).toMatchObject([{ appliedRevision: null, lag: null }]);
  });
});

describe("a start of Atlas", () => {
  test("gives every agent that owns instances a fresh grace", async () => {
    await world.put("identity", "a:1", { agent: "a" });
    const { live } = world;
    await world.pass(25_000);
    world.leases.stop();
    world.agents.stop();
    const again = await createWorldOn(live);
    await again.pass(29_999);
    expect([...again.registry.state().instances.keys()]).toEqual(["identity/a:1"]);
    await again.pass(1);
    expect([...again.registry.state().instances.keys()]).toEqual([]);
    await again.dispose();
  });

  /** A second set of parts on the same open store, as a restarted Atlas has it. */
  async function createWorldOn(live: Stores["live"]): Promise<World> {
    const { meta, clock } = world;
    return createWorld({ clock, directory: "unused", stores: () => ({ live, meta }) });
  }
});

describe("when many agents vanish together", () => {
  const HOSTS = Array.from({ length: 10 }, (_, index) => `h${index}`);
  const connectAll = async () => {
    const connections = new Map<string, { leave: () => void }>();
    for (const host of HOSTS) {
      connections.set(host, await connect(host));
      await world.put("identity", `${host}:1`, { agent: host });
    }
    return connections;
  };
  const vanish = (connections: ReadonlyMap<string, { leave: () => void }>, hosts: readonly string[]): void => {
    for (const host of hosts) connections.get(host)?.leave();
  };
  /** Time passes and those who are connected keep acking. */
  const pass = async (ms: number): Promise<void> => {
    for (let left = ms; left > 0; left -= 5_000) {
      for (const { host, connected } of world.agents.list()) if (connected) ack(host);
      await world.pass(Math.min(left, 5_000));
    }
  };

  test("two of ten expire, three do not: expiry stops and says so", async () => {
    const connections = await connectAll();
    vanish(connections, ["h0", "h1"]);
    await pass(30_000);
    expect(instances()).toHaveLength(8);
    expect(world.agents.degraded()).toBeUndefined();

    vanish(connections, ["h2", "h3", "h4"]);
    await pass(1);
    expect(world.agents.degraded()).toContain("3 of 8 agents vanished together (h2, h3, h4)");
    await pass(600_000);
    expect(instances()).toHaveLength(8);
    expect(world.agents.degraded()).toContain("expiry stopped");
  });

  test("it goes on when enough have returned, with a fresh grace for the rest", async () => {
    const connections = await connectAll();
    vanish(connections, ["h0", "h1", "h2", "h3"]);
    await pass(60_000);
    expect(instances()).toHaveLength(10);
    await connect("h0");
    await connect("h1");
    expect(world.agents.degraded()).toBeUndefined();
    await pass(29_000);
    expect(instances()).toHaveLength(10);
    await pass(1_000);
    expect(instances()).toHaveLength(8);
  });

  test("forgetting those that will not return lets it go on, and removes what they had at once", async () => {
    const connections = await connectAll();
    vanish(connections, ["h0", "h1", "h2"]);
    await pass(60_000);
    await world.operations.patchInstance("identity", "h0:1", { enabled: false }, ACTOR);
    expect(await world.agents.forget("h0", () => world.operations.removeHost("h0", ACTOR))).toBe(true);
    expect(instances()).toHaveLength(9);
    expect(reasons()).toEqual([["identity/h0:1", "deregistered"]]);
    await pass(30_000);
    expect(instances()).toHaveLength(7);
    await world.put("identity", "h0:1");
    expect(world.registry.state().instances.get("identity/h0:1")?.enabled).toBe(true);
  });

  test("a connected agent cannot be forgotten, an unknown one already is", async () => {
    await connect("a");
    const forget = (host: string) => world.agents.forget(host, () => world.operations.removeHost(host, ACTOR));
    expect(errorCode(await forget("a").catch((error: unknown) => error))).toBe("conflict");
    expect(await forget("b")).toBe(false);
  });

  test("of a small realm, a large share may vanish, but not three at once", async () => {
    for (const host of ["a", "b", "c"]) await world.put("identity", `${host}:1`, { agent: host });
    await world.pass(60_000);
    expect(instances()).toHaveLength(3);
    expect(world.agents.degraded()).toContain("expiry stopped");
  });

  test("right after a start nothing is said: they have not come yet", async () => {
    for (const host of ["a", "b", "c"]) await world.put("identity", `${host}:1`, { agent: host });
    await world.pass(10_000);
    expect(world.agents.degraded()).toBeUndefined();
  });
});

describe("expiry while the store cannot write", () => {
  test("waits for another grace", async () => {
    await world.dispose();
    let trouble: string | undefined = "the disk is full";
    world = await createWorld({
      stores: ({ live, meta }) => {
        live.degraded = () => trouble;
        return { live, meta };
      },
    });
    await world.put("identity", "a:1", { agent: "a" });
    await world.pass(30_000);
    expect(instances()).toHaveLength(1);
    trouble = undefined;
    await world.pass(29_999);
    expect(instances()).toHaveLength(1);
    await world.pass(1);
    await settle();
    expect(instances()).toHaveLength(0);
  });
});
