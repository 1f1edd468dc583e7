// Several replicas as one: acks, waits, leases, expiry and order across them, on a shared store with a fake clock.
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { errorCode } from "../core/lib/errors.ts";
import { ProblemFault } from "../core/lib/http.ts";
import type { Rejection } from "../core/model/agent.ts";
import { ACTOR, collect, dataOf } from "./fixture.ts";
import { createFleet, type Fleet, type Replica, SESSION_MS } from "./shared-live.fixture.ts";

let fleet: Fleet;
let a: Replica;
let b: Replica;
beforeEach(async () => {
  fleet = await createFleet();
  a = await fleet.start("a");
  b = await fleet.start("b");
});
afterEach(async () => {
  await fleet.dispose();
});

/** An agent with a stream at a replica. `cuts` has why it was ended there. */
async function connect(replica: Replica, host: string, boot = "boot-1") {
  const cuts: string[] = [];
  let leave = (): void => undefined;
  leave = await replica.leases.connect({ host, boot, zone: "z", version: "1" }, (reason) => {
    cuts.push(reason);
    leave();
  });
  return { cuts, leave };
}

/** The agent acks what that replica has, or another revision. */
function ack(replica: Replica, host: string, revision?: number, rejected: Rejection[] = []): void {
  const now = replica.registry.state();
  replica.agents.acknowledge(host, {
    generation: now.generation,
    revision: revision ?? now.revision,
    rejected,
    reloaded: false,
    tookMs: 1,
  });
  replica.leases.acked(host);
}

/** Waits at a replica for its newest revision, and tells what became of it. */
function waiting(replica: Replica, timeoutMs = 10_000) {
  const { generation, revision } = replica.registry.state();
  const outcome: { result?: unknown } = {};
  const wait = replica.waits.begin();
  void wait
    .applied({
      position: { generation, revision },
      subject: { service: "identity" },
      timeoutMs,
      signal: new AbortController().signal,
    })
    .then(
      (progress) => (outcome.result = progress),
      (error: unknown) => (outcome.result = error instanceof ProblemFault ? [error.code, error.extra] : error),
    )
    .finally(() => wait.end());
  return outcome;
}

/** Time passes, and those who are connected keep acking where they are. */
async function pass(ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 5_000) {
    for (const replica of [a, b])
      for (const [host, lease] of replica.live.leases()) if (lease.replica === replica.live.replica) ack(replica, host);
    await fleet.pass(Math.min(left, 5_000));
  }
}

const instancesAt = (replica: Replica): string[] => [...replica.registry.state().instances.keys()].sort();

describe("a wait at one replica", () => {
  test("ends with the acks that come to another, and at once", async () => {
    await connect(a, "here");
    await connect(b, "there");
    await a.put("identity", "x");
    const outcome = waiting(a);
    ack(a, "here");
    await fleet.settle();
    expect(outcome.result).toBeUndefined();
    ack(b, "there");
    await fleet.settle();
    expect(outcome.result).toMatchObject({ applied: 2, total: 2, pending: [], unreachable: [] });
  });

  test("is refused by an agent of another", async () => {
    await connect(b, "there");
    await a.put("identity", "x");
    const outcome = waiting(a);
    ack(b, "there", undefined, [{ service: "identity", error: "line 9" }]);
    await fleet.settle();
    expect(outcome.result).toMatchObject(["rejected", { rejected: [{ host: "there", error: "line 9" }] }]);
  });

  test("lets agents of the others ack at once: it is announced before the write", async () => {
    await fleet.settle();
    const watcher = b.hub.open({ since: undefined, services: undefined, acks: true });
    const { events } = collect(watcher.body);
    const wait = a.waits.begin();
    await fleet.settle();
    await a.put("identity", "x");
    await fleet.settle();
    wait.end();
    await fleet.settle();
    await a.put("identity", "y");
    await fleet.pass(20);
    expect(events.map((event) => [event.event, dataOf(event).ack])).toEqual([
      ["snapshot", undefined],
      ["delta", true],
      ["delta", undefined],
    ]);
  });

  test("asks agents for an ack when the change left before the wait was known there", async () => {
    const agent = collect(b.hub.open({ since: undefined, services: undefined, acks: true }).body);
    const other = collect(b.hub.open({ since: undefined, services: undefined }).body);
    await a.put("identity", "x");
    await fleet.settle();
    waiting(a);
    await connect(b, "there");
    await fleet.settle();
    // nothing waits: there was no agent when it began
    await a.put("identity", "y");
    await fleet.pass(20);
    waiting(a);
    await fleet.settle();
    const { generation, revision } = b.registry.state();
    const last = dataOf(agent.events.at(-1));
    expect(last).toMatchObject({
      generation,
      revision,
      since: revision,
      ack: true,
      instances: { put: [], delete: [] },
    });
    expect(other.events.map((event) => dataOf(event).ack)).not.toContain(true);
  });

  test("names the agents of a replica that does not answer as unreachable, never leaves them out", async () => {
    await connect(a, "here");
    await connect(b, "there");
    await a.put("identity", "x");
    ack(a, "here");
    b.sleep();
    await fleet.pass(4_000);
    ack(b, "there");
    const outcome = waiting(a, 1_000);
    await fleet.pass(1_000);
    expect(outcome.result).toMatchObject([
      "not_applied",
      { applied: 1, total: 2, pending: [], unreachable: ["there"] },
    ]);
    expect(a.peers.degraded()).toEqual([
      "the replica b at b does not answer (b said nothing for 3 s); what its agents applied is unknown",
    ]);
    b.wake();
    await fleet.pass(2_000);
    expect(a.peers.degraded()).toEqual([]);
    expect(a.agents.list()).toMatchObject([
      { host: "here", lag: 0 },
      { host: "there", lag: 0 },
    ]);
  });

  test("believes an ack from ahead once this replica has the change too", async () => {
    await connect(b, "there");
    a.live.pause();
    await b.put("identity", "x");
    ack(b, "there");
    await fleet.settle();
    expect(a.agents.list()).toMatchObject([{ host: "there", appliedRevision: null }]);
    const events: string[] = [];
    a.agents.on(({ kind }) => events.push(kind));
    a.live.resume();
    await fleet.settle();
    expect(a.agents.list()).toMatchObject([{ host: "there", lag: 0 }]);
    expect(events).toEqual(["acked"]);
  });

  test("takes an ack that is told sooner than its agent's lease", async () => {
    a.live.pause();
    await connect(b, "there");
    ack(b, "there");
    await fleet.settle();
    expect(a.agents.list()).toEqual([]);
    a.live.resume();
    expect(a.agents.list()).toMatchObject([{ host: "there", lag: 0 }]);
  });
});

describe("acks", () => {
  test("count wherever they arrive, as behind a load balancer, and keep the agent alive", async () => {
    const { cuts } = await connect(a, "here");
    await a.put("identity", "x");
    for (let turn = 0; turn < 5; turn += 1) {
      await fleet.pass(10_000);
      ack(b, "here");
      await fleet.settle();
    }
    expect(cuts).toEqual([]);
    for (const replica of [a, b]) expect(replica.agents.list()).toMatchObject([{ host: "here", lag: 0 }]);
  });

  test("of before a move, that come late, take nothing back", async () => {
    await connect(a, "host");
    await a.put("identity", "x");
    ack(a, "host");
    await connect(b, "host");
    await b.put("identity", "y");
    ack(b, "host");
    await fleet.settle();
    ack(a, "host", 1);
    await fleet.settle();
    for (const replica of [a, b]) expect(replica.agents.list()).toMatchObject([{ host: "host", lag: 0 }]);
  });

  test("are known to a replica that starts later", async () => {
    await connect(a, "host");
    await a.put("identity", "x");
    ack(a, "host");
    const c = await fleet.start("c");
    expect(c.agents.list()).toEqual(a.agents.list());
    expect(c.agents.list()).toMatchObject([{ host: "host", connected: true, lag: 0 }]);
  });
});

describe("a lease", () => {
  test("goes along when its agent moves; the stream it left is cut and releases nothing", async () => {
    const first = await connect(a, "host");
    await a.put("identity", "host:1", { agent: "host" });
    await connect(b, "host");
    await fleet.settle();
    expect(first.cuts).toEqual(["the lease of host is held by the replica b now"]);
    expect(a.live.leases().get("host")).toMatchObject({ replica: "b", boot: "boot-1" });
    await pass(60_000);
    expect(instancesAt(a)).toEqual(["identity/host:1"]);
  });

  test("is refused to another boot while the first is live at another replica", async () => {
    const first = await connect(a, "host", "boot-1");
    const second = await connect(b, "host", "boot-2").catch((error: unknown) => error);
    expect([errorCode(second), String(second)]).toEqual([
      "conflict",
      expect.stringContaining("at the replica a (boot boot-1)"),
    ]);
    first.leave();
    await fleet.settle();
    await connect(b, "host", "boot-2");
    expect(a.live.leases().get("host")).toMatchObject({ replica: "b", boot: "boot-2" });
  });

  test("is taken by another boot from a replica that does not answer", async () => {
    await connect(a, "host", "boot-1");
    a.sleep();
    const second = connect(b, "host", "boot-2");
    await fleet.pass(2_000);
    await second;
    expect(b.live.leases().get("host")).toMatchObject({ replica: "b", boot: "boot-2" });
  });

  test("outlives a replica that was killed until its agent is elsewhere: nothing expires", async () => {
    await connect(a, "host");
    await a.put("identity", "host:1", { agent: "host" });
    await a.kill();
    await fleet.pass(5_000);
    await connect(b, "host");
    await fleet.pass(SESSION_MS);
    ack(b, "host");
    expect(b.live.leases().get("host")).toMatchObject({ replica: "b" });
    await fleet.pass(29_000);
    expect(instancesAt(b)).toEqual(["identity/host:1"]);
    expect(b.live.replicas().has("a")).toBe(false);
  });
});

describe("expiry", () => {
  test("of one host by two replicas at once is one removal and one line in the audit trail", async () => {
    const { leave } = await connect(a, "host");
    await a.put("identity", "host:1", { agent: "host" });
    leave();
    await fleet.settle();
    await fleet.pass(30_000);
    for (const replica of [a, b]) {
      expect(instancesAt(replica)).toEqual([]);
      expect(replica.agents.list()).toEqual([]);
    }
    const audit = await a.meta.audit(10);
    expect(audit.filter(({ kind }) => kind === "instance.expire")).toHaveLength(1);
  });

  test("waits a whole grace after the store was away, whatever it shows then", async () => {
    const { leave } = await connect(a, "host");
    await a.put("identity", "host:1", { agent: "host" });
    leave();
    await fleet.settle();
    await fleet.pass(20_000);
    for (const replica of [a, b]) replica.live.blind();
    await fleet.pass(60_000);
    for (const replica of [a, b]) replica.live.see();
    await fleet.pass(29_999);
    expect(instancesAt(a)).toEqual(["identity/host:1"]);
    await fleet.pass(1);
    expect(instancesAt(a)).toEqual([]);
  });

  test("a partitioned replica expires nothing: it neither sees nor writes", async () => {
    const { leave } = await connect(a, "host");
    await a.put("identity", "host:1", { agent: "host" });
    leave();
    await fleet.settle();
    b.live.blind();
    await fleet.pass(1_000);
    await connect(a, "host");
    await pass(90_000);
    expect(instancesAt(a)).toEqual(["identity/host:1"]);
    b.live.see();
    await fleet.settle();
    await pass(60_000);
    expect(instancesAt(a)).toEqual(["identity/host:1"]);
    expect(b.agents.list()).toMatchObject([{ host: "host", connected: true }]);
  });

  test("a replica that alone lost the store, for long, costs its agents nothing: it is asked, and sends them on", async () => {
    // all who see the store ask, one after the other
    await fleet.start("c");
    const { cuts } = await connect(a, "host");
    await a.put("identity", "host:1", { agent: "host" });
    a.live.cutOff();
    for (let passed = 0; passed < SESSION_MS + 31_000; passed += 1_000) {
      a.leases.acked("host");
      await fleet.pass(1_000);
    }
    expect(b.live.leases().size).toBe(0);
    expect(instancesAt(b)).toEqual(["identity/host:1"]);
    expect(cuts).toEqual(["this replica does not see the store, and another one does"]);
    // nobody has it any more, and it does not come
    await fleet.pass(31_000);
    expect(instancesAt(b)).toEqual([]);
  });

  test("a replica that was stopped expires nobody before it has looked: its timers are due before its news", async () => {
    const { leave } = await connect(a, "host");
    await a.put("identity", "host:1", { agent: "host" });
    leave();
    await fleet.settle();
    await fleet.pass(25_000);
    // a stopped process: no news, and then all timers at once
    b.live.pause();
    const now = fleet.clock.now.bind(fleet.clock);
    fleet.clock.now = () => now() + 8_000;
    await connect(a, "host");
    await fleet.pass(5_000);
    b.live.resume();
    await fleet.settle();
    await pass(60_000);
    expect(instancesAt(a)).toEqual(["identity/host:1"]);
  });

  const vanish = async (count: number): Promise<void> => {
    for (let index = 0; index < count; index += 1) {
      const { leave } = await connect(a, `h${index}`);
      await a.put("identity", `h${index}:1`, { agent: `h${index}` });
      leave();
    }
    await fleet.settle();
    await fleet.pass(60_000);
  };

  test("that stopped is stopped at a replica that starts later, although it never met those who vanished", async () => {
    // two own instances, the others nothing that would name them
    for (let index = 0; index < 3; index += 1) (await connect(a, `idle${index}`)).leave();
    await vanish(2);
    const c = await fleet.start("c");
    await fleet.pass(60_000);
    expect(instancesAt(c)).toHaveLength(2);
    expect(c.agents.degraded()).toMatch(/^expiry stopped: the replica [ab] has seen too many agents vanish together$/);
    for (const host of ["idle0", "idle1", "idle2"])
      await b.agents.forget(host, () => b.operations.removeHost(host, ACTOR));
    await fleet.settle();
    expect([a, b, c].map(({ agents }) => agents.degraded())).toEqual([undefined, undefined, undefined]);
    await fleet.pass(30_000);
    expect(instancesAt(c)).toEqual([]);
  });

  test("goes on everywhere when the vanished are forgotten at one replica", async () => {
    await vanish(4);
    expect(b.agents.degraded()).toContain("4 of 4 agents vanished together");
    for (const host of ["h0", "h1"]) await a.agents.forget(host, () => a.operations.removeHost(host, ACTOR));
    await fleet.settle();
    expect(b.agents.list().map(({ host }) => host)).toEqual(["h2", "h3"]);
    await fleet.pass(30_000);
    expect(instancesAt(b)).toEqual([]);
  });

  test("a held host whose last instance is deregistered is given up at a replica that hears of nothing else", async () => {
    await vanish(4);
    a.sleep();
    await fleet.pass(4_000);
    for (const host of ["h0", "h1"]) await a.operations.deleteInstance("identity", `${host}:1`, undefined, ACTOR);
    await fleet.settle();
    expect(b.agents.list().map(({ host }) => host)).toEqual(["h2", "h3"]);
  });

  test("held agents that own nothing are listed, and waited for no longer than their grace", async () => {
    for (let index = 0; index < 4; index += 1) (await connect(a, `idle${index}`)).leave();
    await connect(b, "here");
    await pass(20_000);
    await a.put("identity", "x");
    const early = waiting(b, 1_000);
    ack(b, "here");
    await pass(1_000);
    expect(early.result).toMatchObject(["not_applied", { unreachable: ["idle0", "idle1", "idle2", "idle3"] }]);
    const patient = waiting(b, 60_000);
    await pass(20_000);
    expect(patient.result).toMatchObject({ applied: 1, total: 1 });
    expect(b.agents.list()).toHaveLength(5);
    expect([a.agents.size, b.agents.size]).toEqual([1, 1]);
  });
});

describe("DELETE of a host", () => {
  test("forgets the intents about its absent instances too", async () => {
    const forget = (host: string) => a.agents.forget(host, () => a.operations.removeHost(host, ACTOR));
    for (const [instance, agent] of [
      ["host:1", "host"],
      ["other:1", "other"],
    ] as const) {
      await a.put("identity", instance, { agent });
      await a.operations.patchInstance("identity", instance, { enabled: false }, ACTOR);
      await a.operations.deleteInstance("identity", instance, agent, ACTOR);
    }
    expect(a.live.away().map(({ instance }) => instance)).toEqual(["host:1", "other:1"]);
    expect(await forget("host")).toBe(true);
    expect(a.live.away().map(({ instance }) => instance)).toEqual(["other:1"]);
    await a.put("identity", "host:1");
    expect(a.registry.state().instances.get("identity/host:1")?.enabled).toBe(true);
    // the instance is an operator's now, and the host is unknown
    expect(await forget("host")).toBe(false);
    expect((await a.meta.audit(2)).map(({ kind, target }) => [kind, target])).toEqual([
      ["instance.put", "identity/host:1"],
      ["agent.delete", "identity/host:1"],
    ]);
  });
});

describe("a watcher that is ahead of a replica", () => {
  const signal = new AbortController().signal;

  test("is held until the replica has caught up", async () => {
    b.live.pause();
    await a.put("identity", "x");
    let there = false;
    const reached = b.catchUp.reach(a.registry.state(), { signal }).then(() => (there = true));
    await fleet.pass(1_000);
    expect(there).toBe(false);
    b.live.resume();
    await reached;
    expect(b.registry.state().revision).toBe(a.registry.state().revision);
  });

  test("is sent to another replica after 3 s, also by one that lags behind a new generation", async () => {
    b.live.pause();
    await a.put("identity", "x");
    const { generation, revision } = a.registry.state();
    for (const position of [
      { generation, revision },
      { generation: generation + 1, revision: 0 },
    ]) {
      const refused = b.catchUp.reach(position, { signal }).catch((error: unknown) => error);
      await fleet.pass(3_000);
      const error = (await refused) as ProblemFault;
      expect([error.code, error.headers]).toEqual(["unavailable", { "retry-after": "1" }]);
    }
  });

  test("is told what there is when the registry stays behind it: it went back, and nobody may be deaf for ever", async () => {
    const { generation, revision } = a.registry.state();
    const position = { generation, revision: revision + 100 };
    const ask = async (): Promise<unknown> => {
      const answer = b.catchUp.reach(position, { signal }).then(
        () => "told",
        (error: unknown) => errorCode(error),
      );
      await fleet.pass(3_000);
      return answer;
    };
    expect([await ask(), await ask(), await ask()]).toEqual(["unavailable", "unavailable", "unavailable"]);
    await fleet.pass(1_000);
    b.live.blind();
    expect(await ask()).toBe("unavailable");
    b.live.see();
    expect(await ask()).toBe("told");
  });
});
