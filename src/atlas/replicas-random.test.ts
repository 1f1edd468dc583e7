// Random writes through random replicas that lag, go blind and are killed, and watchers that move between them: each must see
// positions only grow, and at every rest have exactly what the registry has.
import { expect, test } from "bun:test";
import { randomOf } from "../core/lib/random.fixture.ts";
import { comparePositions, formatPosition } from "../core/model/position.ts";
import { applyDelta, deltaSchema, type Snapshot, snapshotSchema } from "../core/model/snapshot.ts";
import { collect } from "./fixture.ts";
import { createFleet, type Replica } from "./shared-live.fixture.ts";
import type { Watcher } from "./watcher.ts";
import { writeAtRandom } from "./write.fixture.ts";

const STEPS = 3_000;

type Reader = {
  state: Snapshot | undefined;
  stream:
    | {
        readonly at: Replica;
        readonly watcher: Watcher;
        readonly events: ReturnType<typeof collect>["events"];
        read: number;
      }
    | undefined;
};

const comparable = ({ generation, revision, services, instances }: Snapshot): unknown => ({
  generation,
  revision,
  services: Object.entries(services).toSorted(([a], [b]) => (a < b ? -1 : 1)),
  instances: instances.toSorted((a, b) => (a.id < b.id ? -1 : 1)),
});

test.each([1, 2, 3, 4])(
  "watchers that move between replicas never go back and miss nothing (seed %d)",
  async (seed) => {
    const random = randomOf(seed);
    const pick = <T>(from: readonly T[]): T => from[Math.floor(random(from.length))] as T;
    const fleet = await createFleet();
    let names = 0;
    const start = () => fleet.start(`r${(names += 1)}`);
    const replicas: Replica[] = [await start(), await start(), await start()];
    const readers: Reader[] = Array.from({ length: 9 }, () => ({ state: undefined, stream: undefined }));
    /** Where each replica's own deltas end. */
    const boundaries = new Map<Replica, Set<string>>();
    const seen = { snapshot: 0, delta: 0, between: 0, refused: 0 };

    /** What is under way; a refusal is as good as another answer. */
    const writes = new Set<Promise<unknown>>();
    const begin = (write: Promise<unknown>): void => {
      const done = write.catch(() => undefined).finally(() => writes.delete(done));
      writes.add(done);
    };

    const follow = (reader: Reader): void => {
      const { stream } = reader;
      if (stream === undefined) return;
      for (; stream.read < stream.events.length; stream.read += 1) {
        const { event = "", data = "" } = stream.events[stream.read] ?? {};
        if (event !== "snapshot" && event !== "delta") continue;
        const before = reader.state;
        if (event === "snapshot") reader.state = snapshotSchema.parse(JSON.parse(data));
        else reader.state = before && applyDelta(before, deltaSchema.parse(JSON.parse(data)));
        expect([data, reader.state === undefined]).toEqual([data, false]);
        const now = reader.state as Snapshot;
        if (before !== undefined) expect(comparePositions(now, before)).toBeGreaterThanOrEqual(0);
        const ends = boundaries.get(stream.at) ?? new Set();
        if (stream.read === 0) {
          seen[event] += 1;
          if (event === "delta" && before !== undefined && !ends.has(formatPosition(before))) seen.between += 1;
        }
        boundaries.set(stream.at, ends.add(formatPosition(now)));
      }
    };
    const open = async (reader: Reader): Promise<void> => {
      const at = pick(replicas);
      const since = reader.state;
      if (since !== undefined) {
        const answer = at.catchUp.reach(since, new AbortController()).then(
          () => true,
          () => false,
        );
        await fleet.pass(3_000);
        if (!(await answer)) {
          seen.refused += 1;
          return;
        }
      }
      const watcher = at.hub.open({ since, services: undefined });
      reader.stream = { at, watcher, events: collect(watcher.body).events, read: 0 };
    };
    const close = (reader: Reader): void => {
      follow(reader);
      reader.stream?.watcher.end("the reader moves");
      reader.stream = undefined;
    };

    for (let step = 0; step < STEPS; step += 1) {
      const doing = random(17.64);
      const replica = pick(replicas);
      if (doing < 9) begin(writeAtRandom(replica, pick, random));
      else if (doing < 11) await fleet.pass(Math.floor(random(30)));
      else if (doing < 12) await fleet.settle();
      else if (doing < 14) {
        const reader = pick(readers);
        if (reader.stream === undefined) await open(reader);
        else close(reader);
      } else if (doing < 15.8) replica.live.pause();
      else if (doing < 16.3) replica.live.resume();
      else if (doing < 17) replica.live.blind();
      else if (doing < 17.4) replica.live.see();
      else if (doing < 17.6) {
        for (const reader of readers) if (reader.stream?.at === replica) close(reader);
        await replica.kill();
        replicas.splice(replicas.indexOf(replica), 1, await start());
      } else {
        const { definitions, settings } = replica.live.state();
        begin(replica.live.restore({ definitions, settings, instances: [], away: [] }));
      }
      if (step % 60 > 0) continue;
      for (const one of replicas) {
        one.live.see();
        one.live.resume();
      }
      await fleet.pass(5_000);
      while (writes.size > 0) await fleet.pass(1_000);
      // the last delta leaves, and is read
      await fleet.pass(20);
      const [first] = replicas;
      for (const reader of readers) {
        follow(reader);
        if (reader.stream === undefined) continue;
        expect(comparable(reader.state as Snapshot)).toEqual(comparable((first as Replica).registry.snapshot()));
      }
    }
    expect(Math.min(...Object.values(seen))).toBeGreaterThan(0);
    await fleet.dispose();
  },
  60_000,
);
