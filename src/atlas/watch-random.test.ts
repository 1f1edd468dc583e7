// Random writes, and watchers that come, filter, vanish and resume at random: each must at every rest have exactly what the
// registry has, by steps that follow one another.
import { expect, test } from "bun:test";
import { silentLogger } from "../core/lib/logger.ts";
import { randomOf } from "../core/lib/random.fixture.ts";
import { applyDelta, deltaSchema, type Snapshot, snapshotSchema } from "../core/model/snapshot.ts";
import type { Position } from "../core/model/position.ts";
import { collect, createWorld, settle } from "./fixture.ts";
import { filterSnapshot } from "./watch-filter.ts";
import { WatchHub } from "./watch-hub.ts";
import type { Watcher } from "./watcher.ts";
import { writeAtRandom } from "./write.fixture.ts";

const STEPS = 1_500;

type Reader = {
  readonly services: ReadonlySet<string> | undefined;
  state: Snapshot | undefined;
  stream:
    | { readonly watcher: Watcher; readonly events: ReturnType<typeof collect>["events"]; read: number }
    | undefined;
};

/** What a reader has that others may compare: its own memory of removals depends on when it came. */
const comparable = ({ revision, services, instances }: Snapshot): unknown => ({
  revision,
  services: Object.entries(services).toSorted(([a], [b]) => (a < b ? -1 : 1)),
  instances: instances.toSorted((a, b) => (a.id < b.id ? -1 : 1)),
});

test.each([1, 2, 3])(
  "no watcher misses, repeats or invents a change (seed %d)",
  async (seed) => {
    const random = randomOf(seed);
    const pick = <T>(from: readonly T[]): T => from[Math.floor(random(from.length))] as T;
    const world = await createWorld();
    const { registry, clock } = world;
    // a log so short that some who return must begin anew
    const options = {
      registry,
      clock,
      logger: silentLogger,
      agents: () => 0,
      wantsAck: () => false,
      log: { changes: 6 },
    };
    const hub = new WatchHub(options);
    const readers = [undefined, undefined, ["a"], ["b", "c"], ["never"]].map((services): Reader => ({
      services: services && new Set(services),
      state: undefined,
      stream: undefined,
    }));
    const writes: Promise<void>[] = [];
    const seen = { snapshot: 0, delta: 0, heartbeat: 0 };

    const follow = (reader: Reader): void => {
      const { stream } = reader;
      if (stream === undefined) return;
      for (; stream.read < stream.events.length; stream.read += 1) {
        const { event = "", data = "" } = stream.events[stream.read] ?? {};
        if (stream.read === 0) seen[event as keyof typeof seen] += 1;
        if (event === "snapshot") {
          expect(stream.read).toBe(0);
          reader.state = snapshotSchema.parse(JSON.parse(data));
        } else if (event === "delta") {
          const next = reader.state && applyDelta(reader.state, deltaSchema.parse(JSON.parse(data)));
          expect([data, next === undefined]).toEqual([data, false]);
          reader.state = next;
        } else expect(JSON.parse(data)).toMatchObject({ revision: reader.state?.revision ?? -1 });
      }
    };
    const open = (reader: Reader): void => {
      const since: Position | undefined = random(5) < 1 ? undefined : reader.state;
      const watcher = hub.open({ since, services: reader.services });
      reader.stream = { watcher, events: collect(watcher.body).events, read: 0 };
    };
    const close = (reader: Reader): void => {
      // what came until now was read; what is sent from now on is lost
      follow(reader);
      reader.stream?.watcher.end("the reader vanished");
      reader.stream = undefined;
    };

    for (let step = 0; step < STEPS; step += 1) {
      const doing = random(10);
      if (doing < 5) writes.push(writeAtRandom(world, pick, random).catch(() => undefined));
      else if (doing < 6) await settle();
      else if (doing < 8) await clock.advance(Math.floor(random(30)));
      else {
        const reader = pick(readers);
        if (reader.stream === undefined) open(reader);
        else close(reader);
      }
      if (step % 25 > 0) continue;
      await Promise.all(writes.splice(0));
      await clock.advance(20);
      await settle();
      for (const reader of readers) {
        if (reader.stream === undefined) continue;
        follow(reader);
        expect(comparable(reader.state as Snapshot)).toEqual(
          comparable(filterSnapshot(registry.snapshot(), reader.services)),
        );
      }
    }
    // it did try every way to come back
    expect(Math.min(...Object.values(seen))).toBeGreaterThan(0);
    hub.stop("the test is over");
    await world.dispose();
  },
  30_000,
);
