// Several writers at random through several replicas, while replicas and ZooKeeper are killed and come back: every watcher must
// end with exactly the registry's state, must have seen (generation, revision) only grow, and nothing that was acknowledged is lost.
// alone: so many kills fit into its time only on a machine that does nothing else.
import { describe, expect } from "bun:test";
import { randomOf } from "../core/lib/random.fixture.ts";
import type { Instance } from "../core/model/instance.ts";
import type { Snapshot } from "../core/model/snapshot.ts";
import { eventually, scenario } from "./harness.ts";
import { startZooKeeperEnsemble } from "./parts.ts";
import { type Answer, ask, connected, followAtlas, type Json, type Replica, startCluster } from "./replicas-kit.ts";

/** Another one repeats another run. */
const SEED = Number(process.env.SEED ?? 1);
/** How long there are writes and kills. */
const RUN_MS = 20_000;
const SERVICES = ["a", "b", "c"];
const WRITERS = 4;

/** What the registry may have of an instance: what was acknowledged last, and whatever was tried since without an answer. */
type Expected = { acknowledged: number | undefined; readonly perhaps: Set<number | undefined> };

const byId = (instances: readonly Instance[]): readonly Instance[] =>
  instances.toSorted((a, b) => (a.id < b.id ? -1 : 1));

describe("a cluster at random", () => {
  scenario(
    `every watcher ends with the registry's state, and nothing went back (SEED=${SEED})`,
    async (world) => {
      const random = randomOf(SEED);
      const pick = <T>(from: readonly T[]): T => from[Math.floor(random(from.length))] as T;
      const ensemble = await startZooKeeperEnsemble(world, 3);
      const cluster = await startCluster(world, ensemble.servers);
      const replicas: Replica[] = [await cluster.start(), await cluster.start(), await cluster.start()];
      const urls = replicas.map(({ url }) => url);
      const agents = Array.from({ length: 4 }, (_, index) => followAtlas(world, urls, `host${index}`));
      const watchers = Array.from({ length: 6 }, (_, index) =>
        followAtlas(world, urls, `watcher${index}`, { lease: false }),
      );
      await connected([...agents, ...watchers]);
      const seen = { acknowledged: 0, refused: 0, lost: 0, kills: 0 };

      // one writer for each instance, so that it is known which write was the last
      const expected = new Map<string, Expected>();
      const end = Date.now() + RUN_MS;
      const writer = async (number: number): Promise<void> => {
        const own = randomOf(SEED * 1_000 + number);
        while (Date.now() < end) {
          const service = SERVICES[Math.floor(own(SERVICES.length))] as string;
          const name = `w${number}-${Math.floor(own(5))}:1`;
          const id = `${service}/${name}`;
          const known = expected.get(id) ?? { acknowledged: undefined, perhaps: new Set() };
          expected.set(id, known);
          const weight = own(10) < 3 ? undefined : Math.floor(own(257));
          const url = `${urls[Math.floor(own(urls.length))]}/v1/services/${service}/instances/${name}`;
          known.perhaps.add(weight);
          const answer: Answer | undefined = await (
            weight === undefined ? ask(url, "DELETE", undefined, 5_000) : ask(url, "PUT", { port: 1, weight }, 5_000)
          ).catch(() => undefined);
          if (answer !== undefined && answer.status < 300) {
            known.acknowledged = weight;
            known.perhaps.clear();
            seen.acknowledged += 1;
          } else if (answer === undefined) seen.lost += 1;
          else {
            expect([answer.status, answer.body.code]).toEqual([503, "unavailable"]);
            seen.refused += 1;
          }
          // what was not acknowledged may still be on its way, and must not overtake the next
          await Bun.sleep(answer !== undefined && answer.status < 300 ? own(20) : 500);
        }
      };
      const havoc = async (): Promise<void> => {
        while (Date.now() < end - 3_000) {
          await Bun.sleep(1_000 + random(2_000));
          seen.kills += 1;
          const what = random(10);
          if (what < 5) {
            // one node, or all of them: then nobody can write for a while
            const nodes = what < 4 ? [pick(ensemble.nodes)] : ensemble.nodes;
            await Promise.all(nodes.map((node) => node.kill()));
            await Bun.sleep(random(1_000));
            for (const node of nodes) node.start();
            await ensemble.serving(nodes);
            continue;
          }
          const index = Math.floor(random(replicas.length));
          const victim = replicas[index] as Replica;
          victim.process.signal(pick(["SIGKILL", "SIGKILL", "SIGTERM"]));
          await victim.process.exited;
          replicas[index] = await cluster.start(victim.port);
        }
      };
      await Promise.all([havoc(), ...Array.from({ length: WRITERS }, (_, number) => writer(number))]);
      console.log(`SEED=${SEED}:`, seen);

      await connected([...agents, ...watchers], 20_000);
      const truth = await eventually(
        "all replicas stand at one position and so do their watchers",
        async () => {
          const infos = await Promise.all(urls.map((url) => ask(`${url}/v1/info`).then(({ body }) => body)));
          const position = ({ generation, revision }: Json | Snapshot): string => `${generation}.${revision}`;
          const [here] = infos;
          const all = [...infos, ...[...agents, ...watchers].map((one) => one.snapshot() as Snapshot)];
          expect(new Set(all.map(position)).size).toBe(1);
          const { body } = await ask(`${urls[0]}/v1/info`);
          expect(position(body)).toBe(position(here as Json));
          return freshSnapshot(urls[0] as string);
        },
        20_000,
      );
      for (const one of [...agents, ...watchers]) {
        const state = one.snapshot() as Snapshot;
        expect(state.services).toEqual(truth.services);
        expect(byId(state.instances)).toEqual(byId(truth.instances));
        expect([one.host, one.wentBack]).toEqual([one.host, []]);
      }
      for (const url of urls) expect(byId((await freshSnapshot(url)).instances)).toEqual(byId(truth.instances));
      const weights = new Map(truth.instances.map(({ id, weight }) => [id, weight]));
      const wrong = [...expected].filter(
        ([id, { acknowledged, perhaps }]) => ![acknowledged, ...perhaps].includes(weights.get(id)),
      );
      expect(wrong).toEqual([]);
      expect(Math.min(seen.kills, seen.acknowledged)).toBeGreaterThan(3);
    },
    120_000,
  );
});

/** The first event of a new stream. */
async function freshSnapshot(url: string): Promise<Snapshot> {
  const ending = new AbortController();
  const response = await fetch(`${url}/v1/watch`, { signal: ending.signal });
  const reader = response.body?.getReader();
  if (reader === undefined) throw new Error("no body");
  let text = "";
  const decoder = new TextDecoder();
  while (!text.includes("\n\n")) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the stream ended");
    text += decoder.decode(value, { stream: true });
  }
  ending.abort();
  return JSON.parse(/^data: (.*)$/m.exec(text)?.[1] ?? "null") as Snapshot;
}
