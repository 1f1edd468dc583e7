// What the tests of Atlas share: its parts on a real store in a directory of their own, driven by a fake clock.
import type { AtlasClient } from "../core/api/atlas-client.ts";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type FakeClock, fakeClock } from "../core/lib/clock.ts";
import { silentLogger } from "../core/lib/logger.ts";
import { readSse, type SseEvent } from "../core/lib/sse.ts";
import { createSqliteStores } from "../core/registry/sqlite.ts";
import type { Stores } from "../core/registry/stores.ts";
import { Agents } from "./agents.ts";
import { Leases } from "./leases.ts";
import { Limits } from "./limits.ts";
import { type Actor, AuditTrail } from "./audit-trail.ts";
import { Backups } from "./backup.ts";
import { CatchUp } from "./catch-up.ts";
import { metadataQueue } from "./metadata-queue.ts";
import { Operations } from "./operations.ts";
import { PeerFeed } from "./peer-feed.ts";
import { hearPeers, Peers } from "./peers.ts";
import { PortOperations } from "./port-operations.ts";
import { SettingsOperations } from "./settings-operations.ts";
import { Registry } from "./registry.ts";
import { Waits } from "./waits.ts";
import { WatchHub } from "./watch-hub.ts";

export const ACTOR: Actor = { who: "ann", from: "127.0.0.1" };

export type World = {
  readonly clock: FakeClock;
  readonly live: Stores["live"];
  readonly meta: Stores["meta"];
  readonly registry: Registry;
  readonly operations: Operations;
  readonly settings: SettingsOperations;
  readonly ports: PortOperations;
  readonly backups: Backups;
  readonly leases: Leases;
  readonly agents: Agents;
  readonly waits: Waits;
  readonly hub: WatchHub;
  readonly limits: Limits;
  readonly peers: Peers;
  readonly feed: PeerFeed;
  readonly catchUp: CatchUp;
  /** Puts an instance, with its agent's name when it has one. */
  put(service: string, instance: string, more?: { agent?: string; weight?: number }): Promise<{ revision: number }>;
  /** Advances time and lets the store's transactions run. */
  pass(ms: number): Promise<void>;
  dispose(): Promise<void>;
};

export type WorldOptions = {
  /** @default a new one, removed at the end */
  readonly directory?: string;
  readonly clock?: FakeClock;
  /** Wraps the stores, to make them fail. */
  readonly stores?: (stores: Stores) => Stores;
  /** How another replica is reached by its name, which is its URL here. @default there is none */
  readonly connect?: (replica: string) => AtlasClient;
};

/** Atlas without its HTTP. */
export async function createWorld(options: WorldOptions = {}): Promise<World> {
  const directory = options.directory ?? (await mkdtemp(join(tmpdir(), "smartstack-atlas-")));
  const clock = options.clock ?? fakeClock();
  const plain = createSqliteStores({ directory, realm: "local", clock });
  const { live, meta } = options.stores?.(plain) ?? plain;
  const registry = new Registry({ realm: "local", live, meta, clock, logger: silentLogger });
  await registry.open();
  const audit = new AuditTrail({ meta, clock, logger: silentLogger });
  const writes = { registry, live, meta, audit, metadata: metadataQueue() };
  const operations = new Operations(writes);
  const settings = new SettingsOperations(writes, clock);
  const ports = new PortOperations(writes);
  const backups = new Backups(writes, clock);
  const peers = new Peers({ live, clock, logger: silentLogger, connect: options.connect ?? failAlone });
  const leases = new Leases({
    live,
    clock,
    logger: silentLogger,
    liveBoot: (replica, host) => peers.liveBoot(replica, host),
  });
  const agents = new Agents({
    live,
    registry,
    clock,
    logger: silentLogger,
    elsewhere: peers,
    expire: (host) => operations.expire(host),
  });
  const waits = new Waits(agents, clock);
  const hub = new WatchHub({
    registry,
    clock,
    logger: silentLogger,
    agents: () => agents.size,
    wantsAck: (since, revision) => waits.wantsAck(since, revision) || peers.wantsAck(since, revision),
  });
  const feed = new PeerFeed({ replica: live.replica, agents, waits, clock });
  const catchUp = new CatchUp({ registry, clock, logger: silentLogger, mayLag: options.connect !== undefined });
  if (options.connect !== undefined) {
    await live.announce(live.replica);
    peers.start(hearPeers({ agents, leases, hub }));
  }
  return {
    clock,
    live,
    meta,
    registry,
    operations,
    settings,
    ports,
    backups,
    leases,
    agents,
    waits,
    hub,
    limits: new Limits(),
    peers,
    feed,
    catchUp,
    put: (service, instance, more = {}) => operations.putInstance(service, instance, { port: 5000, ...more }, ACTOR),
    async pass(ms) {
      await clock.advance(ms);
      await settle();
    },
    async dispose() {
      waits.stop();
      catchUp.stop();
      hub.stop("the test is over");
      feed.stop("the test is over");
      await peers.stop();
      leases.stop();
      agents.stop();
      await registry.close();
      if (options.directory === undefined) await rm(directory, { recursive: true, force: true });
    },
  };
}

function failAlone(): never {
  throw new Error("this replica is alone");
}

/** Lets transactions that were asked for run: they begin a macrotask later, and so may what follows them. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

/** Reads a stream in the background; `events` grows. */
export function collect(body: ReadableStream<Uint8Array>): {
  readonly events: SseEvent[];
  readonly ended: Promise<void>;
} {
  const events: SseEvent[] = [];
  const ended = (async () => {
    for await (const event of readSse(body)) events.push(event);
  })();
  return { events, ended };
}

/** The data of an event, as tests look at it. */
export function dataOf(event: SseEvent | undefined): { readonly revision: number; readonly [key: string]: unknown } {
  return JSON.parse(event?.data ?? "null");
}
