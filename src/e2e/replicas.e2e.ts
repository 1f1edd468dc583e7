// Several Atlases as one: the compiled binary three times, on real ZooKeeper and DynamoDB Local.
import { describe, expect } from "bun:test";
import { readSse } from "../core/lib/sse.ts";
import { eventually, scenario, type World } from "./harness.ts";
import { startZooKeeper } from "./parts.ts";
import { ask, connected, followAtlas, type Replica, startCluster } from "./replicas-kit.ts";

const instances = (url: string): Promise<string[]> =>
  ask(`${url}/v1/services/identity`).then(({ body }) =>
    (body.instances as { instance: string }[]).map(({ instance }) => instance).sort(),
  );

async function startThree(world: World, zookeeper?: string) {
  const cluster = await startCluster(world, zookeeper);
  const replicas = [await cluster.start(), await cluster.start(), await cluster.start()] as const;
  await knowEachOther(replicas);
  return { cluster, replicas };
}

async function knowEachOther(replicas: readonly Replica[]): Promise<void> {
  await eventually(
    "the replicas know each other",
    async () => {
      for (const { url } of replicas) {
        const { body } = await ask(`${url}/v1/info`);
        expect([body.replicas, body.degraded]).toEqual([replicas.length, undefined]);
      }
    },
    20_000,
  );
}

const percentile = (times: readonly number[], share: number): number =>
  times.toSorted((a, b) => a - b)[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0;

/** A stream that holds the lease of host1. */
async function openAgent(world: World, url: string, boot: string) {
  const ending = new AbortController();
  world.defer(() => ending.abort());
  const response = await fetch(`${url}/v1/watch?agent=host1&boot=${boot}`, { signal: ending.signal });
  const seen: string[] = [];
  const { body } = response;
  if (response.ok && body !== null)
    void (async () => {
      for await (const event of readSse(body)) seen.push(event.event === "end" ? event.data : event.event);
    })().catch(() => undefined);
  return { status: response.status, text: () => response.text(), seen, close: () => ending.abort() };
}

describe("several Atlases", () => {
  scenario(
    "a write at one waits for the agents of all, quickly; of a replica that hangs they are named",
    async (world) => {
      const { replicas } = await startThree(world);
      const [a, b, c] = replicas;
      const agents = replicas.flatMap(({ url }, index) =>
        [1, 2].map((count) => followAtlas(world, [url], `host${index}${count}`)),
      );
      await connected(agents);
      const put = (url: string, weight: number, timeout = "10s") =>
        ask(`${url}/v1/services/identity/instances/x:1?wait=applied&timeout=${timeout}`, "PUT", { port: 1, weight });
      expect((await put(a.url, 255)).body).toMatchObject({ applied: 6, total: 6 });

      const times: number[] = [];
      for (let weight = 1; weight <= 100; weight += 1) {
        const { url } = replicas[weight % 3] as Replica;
        const began = performance.now();
        const { status, body } = await put(url, weight);
        times.push(performance.now() - began);
        expect([status, body.applied, body.total]).toEqual([200, 6, 6]);
        // a change within 20 ms of the last one would share its delta
        await Bun.sleep(25);
      }
      console.log(
        `wait=applied over three replicas: p50 ${percentile(times, 0.5).toFixed(1)} ms, p99 ${percentile(times, 0.99).toFixed(1)} ms`,
      );
      // without the others' acks at once it would be the agents' own second
      expect(percentile(times, 0.9)).toBeLessThan(500);

      const revision = agents[0]?.snapshot()?.revision ?? 0;
      await eventually("every replica says the same", async () => {
        const answers = await Promise.all(
          replicas.map(async ({ url }) => [
            (await ask(`${url}/v1/agents`)).body,
            (await ask(`${url}/v1/changes/${revision}`)).body,
          ]),
        );
        expect(answers[1]).toEqual(answers[0]);
        expect(answers[2]).toEqual(answers[0]);
        expect(answers[0]?.[1]).toMatchObject({ applied: 6, total: 6 });
      });

      c.process.signal("SIGSTOP");
      const hung = await put(a.url, 200, "2s");
      expect([hung.status, hung.body.code, hung.body.applied, hung.body.total]).toEqual([504, "not_applied", 4, 6]);
      const { pending, unreachable } = hung.body as { pending: string[]; unreachable: string[] };
      expect([...pending, ...unreachable].sort()).toEqual(["host21", "host22"]);
      await eventually("the others say who does not answer", async () => {
        expect((await ask(`${b.url}/v1/info`)).body.degraded).toEqual([
          expect.stringContaining(`at ${c.url} does not answer`),
        ]);
      });
      c.process.signal("SIGCONT");
      await knowEachOther(replicas);
      await eventually("a wait counts all again", async () => {
        expect((await put(b.url, 201)).body).toMatchObject({ applied: 6, total: 6 });
      });
      expect(agents.flatMap(({ wentBack }) => wentBack)).toEqual([]);
    },
    90_000,
  );

  scenario(
    "one killed under load and then all restarted: agents move, nothing goes back, nothing expires",
    async (world) => {
      const { cluster, replicas } = await startThree(world);
      const urls = replicas.map(({ url }) => url);
      const agents = Array.from({ length: 12 }, (_, index) => followAtlas(world, urls, `host${index}`));
      await connected(agents);
      const [first, second, third] = replicas;
      for (const { host } of agents) {
        const { status } = await ask(`${first.url}/v1/services/identity/instances/${host}:1`, "PUT", {
          port: 1,
          agent: host,
        });
        expect(status).toBe(201);
      }
      const load = { on: true, writes: 0 };
      const loading = (async () => {
        for (; load.on; load.writes += 1) {
          await ask(`${second.url}/v1/services/load/instances/x:1`, "PUT", {
            port: 1,
            weight: load.writes % 256,
          }).catch(() => undefined);
        }
      })();

      await Bun.sleep(500);
      first.process.signal("SIGKILL");
      await first.process.exited;
      await connected(agents, 5_000);
      const moved = await ask(`${third.url}/v1/services/identity/instances/host0:1?wait=applied`, "PATCH", {
        weight: 9,
      });
      expect([moved.status, moved.body.applied, moved.body.total]).toEqual([200, 12, 12]);

      load.on = false;
      await loading;
      expect(load.writes).toBeGreaterThan(20);
      await Promise.all([second.process.stop(), third.process.stop()]);
      const again = await Promise.all(replicas.map(({ port }) => cluster.start(port)));
      const restarted = Date.now();
      await connected(agents, 10_000);

      // past the end of every session and of every grace that began before the agents were back
      await Bun.sleep(Math.max(0, restarted + 33_000 - Date.now()));
      for (const { url } of again) expect(await instances(url)).toEqual(agents.map(({ host }) => `${host}:1`).sort());
      const snapshot = agents[0]?.snapshot();
      expect(snapshot?.removed).toEqual([]);
      expect(agents.flatMap(({ wentBack }) => wentBack)).toEqual([]);
      for (const { url } of again) {
        const { body } = await ask(`${url}/v1/info`);
        expect([body.replicas, body.degraded]).toEqual([3, undefined]);
      }
    },
    120_000,
  );

  scenario(
    "ZooKeeper away for longer than every session: watches go on, who comes is served, writes answer 503, nothing expires",
    async (world) => {
      const zookeeper = await startZooKeeper(world);
      const { replicas } = await startThree(world, zookeeper.address);
      const urls = replicas.map(({ url }) => url);
      const agents = Array.from({ length: 6 }, (_, index) => followAtlas(world, urls, `host${index}`));
      await connected(agents);
      for (const { host } of agents)
        await ask(`${urls[0]}/v1/services/identity/instances/${host}:1`, "PUT", { port: 1, agent: host });
      await eventually("all replicas know them", async () => {
        for (const url of urls) expect(await instances(url)).toHaveLength(6);
      });
      zookeeper.process.signal("SIGKILL");
      await zookeeper.process.exited;
      const away = Date.now();
      await eventually("the replicas notice", async () => {
        for (const url of urls) {
          const { status, body } = await ask(`${url}/readyz`);
          expect([status, (body.degraded as string[]).length > 0]).toEqual([200, true]);
        }
      });
      const refused = await ask(`${urls[0]}/v1/services/identity/instances/x:1`, "PUT", { port: 1 }, 30_000);
      expect([refused.status, refused.body.code]).toEqual([503, "unavailable"]);
      // one restarts in the middle of it
      await agents[0]?.stop();
      const newcomer = followAtlas(world, urls, "host0");
      await connected([newcomer, ...agents.slice(1)]);
      expect(newcomer.snapshot()?.instances).toHaveLength(6);
      await Bun.sleep(Math.max(0, away + 12_000 - Date.now()));
      await startZooKeeper(world, zookeeper);
      const back = Date.now();
      await eventually(
        "writes go on, and all agents count",
        async () => {
          const { body } = await ask(`${urls[1]}/v1/services/identity/instances/x:1?wait=applied`, "PUT", { port: 1 });
          expect(body).toMatchObject({ applied: 6, total: 6 });
        },
        20_000,
      );
      await Bun.sleep(Math.max(0, back + 33_000 - Date.now()));
      for (const url of urls) expect(await instances(url)).toHaveLength(7);
      expect(newcomer.snapshot()?.removed).toEqual([]);
      expect([...agents, newcomer].flatMap(({ wentBack }) => wentBack)).toEqual([]);
    },
    120_000,
  );

  scenario("a lease goes along with its agent, and is refused to another boot at every replica", async (world) => {
    const { replicas } = await startThree(world);
    const [a, b, c] = replicas;
    const open = (url: string, boot: string) => openAgent(world, url, boot);
    const first = await open(a.url, "one");
    expect(first.status).toBe(200);
    // of two that come in the same moment the later one gets it, and the other is refused when it comes back
    await eventually("the other replicas see the lease", async () => {
      expect((await ask(`${c.url}/v1/agents`)).body).toMatchObject([{ host: "host1", connected: true }]);
    });
    const other = await open(c.url, "two");
    expect([other.status, await other.text()]).toEqual([
      409,
      expect.stringContaining("another agent of host1 is live"),
    ]);
    const second = await open(b.url, "one");
    expect(second.status).toBe(200);
    await eventually("the stream that the agent left is cut", () => {
      expect(first.seen.at(-1)).toContain("is held by the replica");
    });
    // its end released nothing
    await Bun.sleep(500);
    expect((await ask(`${c.url}/v1/agents`)).body).toMatchObject([{ host: "host1", connected: true }]);
    second.close();
    await eventually("another boot gets it when the first is gone", async () => {
      expect((await open(c.url, "two")).status).toBe(200);
    });
  });

  scenario(
    "a lease that moved while ZooKeeper was away is the new replica's when the old one gives up its own",
    async (world) => {
      const zookeeper = await startZooKeeper(world);
      const { replicas } = await startThree(world, zookeeper.address);
      const [a, b, c] = replicas;
      const isDegraded = (url: string, wanted: boolean) =>
        eventually(`${url} ${wanted ? "notices" : "sees again"}`, async () => {
          const { body } = await ask(`${url}/readyz`);
          expect((body.degraded as string[]).some((reason) => reason.startsWith("ZooKeeper"))).toBe(wanted);
        });
      const first = await openAgent(world, b.url, "one");
      expect(first.status).toBe(200);
      zookeeper.process.signal("SIGKILL");
      await zookeeper.process.exited;
      for (const { url } of replicas) await isDegraded(url, true);
      const second = await openAgent(world, a.url, "one");
      expect(second.status).toBe(200);
      first.close();
      await eventually("the old replica sees its stream end", async () => {
        expect((await ask(`${b.url}/v1/peer/agents/host1`)).body).toEqual({ boot: null });
      });
      b.process.signal("SIGSTOP");
      await startZooKeeper(world, zookeeper);
      await isDegraded(a.url, false);
      await isDegraded(c.url, false);
      b.process.signal("SIGCONT");
      await isDegraded(b.url, false);
      // whatever the old one still had to give up, it has by now
      await Bun.sleep(1_000);
      for (const { url } of replicas) {
        await eventually(`${url} has the agent`, async () => {
          expect((await ask(`${url}/v1/agents`)).body).toMatchObject([{ host: "host1", connected: true }]);
        });
      }
    },
  );
});
