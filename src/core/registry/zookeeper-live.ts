// The live half of the cluster store: the registry as znodes that people can read and write with zkCli.sh (docs/architecture.md),
// mirrored in memory. Reads and watches are served from the mirror, also while ZooKeeper is away.
import { type Cancel, type Clock, systemClock } from "../lib/clock.ts";
import { errorCode, Fault } from "../lib/errors.ts";
import { type Logger, silentLogger } from "../lib/logger.ts";
import { instanceId, parseInstanceId } from "../model/names.ts";
import type { Position } from "../model/position.ts";
import type {
  InstanceDecision,
  InstanceRecord,
  Lease,
  LeaseView,
  LiveChange,
  LiveContent,
  LiveState,
  LiveStore,
  ReplicaView,
  Written,
} from "./live-store.ts";
import { type NodeEvent, type Zxid, type ZooKeeperClient } from "./zookeeper-client.ts";
import { chrootMissing, claimRealm, makeDirectories } from "./zookeeper-layout.ts";
import { DIRECTORIES, definitionPath, GENERATION, readNumber, settingsPath } from "./zookeeper-nodes.ts";
import {
  planDecision,
  planDeleteService,
  planGeneration,
  planPurge,
  planRestore,
  planVersion,
  transactionsOf,
} from "./zookeeper-plans.ts";
import { Presence } from "./zookeeper-presence.ts";
import { RegistryMirror } from "./zookeeper-registry.ts";
import { parseServers, type Servers, ZooKeeperSession } from "./zookeeper-session.ts";
import { isLoss, tryCommit } from "./zookeeper-waits.ts";
import { type Decide, type WriteOptions, Writer } from "./zookeeper-writes.ts";

/** A write that ZooKeeper did not confirm by then fails. */
const WRITE_MS = 5_000;
/** As `WRITE_MS`, for a restore: 10,000 instances are about a hundred transactions. */
const RESTORE_MS = 60_000;
/** How long a removal keeps its reason. */
const REMOVED_KEPT_MS = 24 * 3_600_000;
/** How often a replica looks for removals that are too old; it waits half to one and a half times as long. */
const PURGE_EVERY_MS = 600_000;
/** So many are enough to see what is going on. */
const PROBLEMS_TOLD = 10;
/** How often a replica that still waits for its first connection says so. */
const TELL_EVERY_MS = 10_000;

export type ZooKeeperLiveOptions = {
  /** `HOST:PORT,HOST:PORT,…[/chroot]`. */
  readonly servers: string;
  readonly realm: string;
  /** The time of day: generations, and when a removal is too old. @default systemClock */
  readonly clock?: Clock;
  /** @default no log */
  readonly logger?: Logger;
  /** Wanted session timeout in ms; the servers bound it by their tickTime. @default 10_000 */
  readonly sessionTimeoutMs?: number;
  /** The name of this replica. @default a new UUID */
  readonly replica?: string;
};

/** Where this replica and ZooKeeper are. */
type Sight =
  | { readonly kind: "opening" | "here" | "closed" }
  | { readonly kind: "away"; readonly since: number; readonly why: string };

/** Opens nothing yet. @throws Fault `invalid` when `servers` is malformed */
export function createZooKeeperLive(options: ZooKeeperLiveOptions): ZooKeeperLive {
  return new ZooKeeperLive(options);
}

export class ZooKeeperLive implements LiveStore {
  readonly replica: string;
  readonly #servers: Servers;
  readonly #realm: string;
  readonly #clock: Clock;
  /** The network's time is real, whatever a test makes of the time of day. */
  readonly #timers: Clock = systemClock;
  readonly #logger: Logger;
  readonly #session: ZooKeeperSession;
  readonly #registry: RegistryMirror;
  readonly #presence: Presence;
  readonly #writer: Writer;
  readonly #listeners = new Set<(change: LiveChange) => void>();
  readonly #leaseListeners = new Set<(leases: LeaseView) => void>();
  readonly #replicaListeners = new Set<(replicas: ReplicaView) => void>();
  readonly #sightListeners = new Set<() => void>();
  readonly #opened = Promise.withResolvers<void>();
  readonly #missing = new Set<string>();
  #sight: Sight = { kind: "opening" };
  #waiters: (() => void)[] = [];
  #connection = 0;
  /** The highest place in ZooKeeper's log that was seen. */
  #seen: Zxid = 0;
  #timer: Cancel | undefined;

  constructor(options: ZooKeeperLiveOptions) {
    const { servers, realm, clock = systemClock, logger = silentLogger } = options;
    const { sessionTimeoutMs = 10_000, replica = crypto.randomUUID() } = options;
    this.replica = replica;
    this.#servers = parseServers(servers);
    this.#realm = realm;
    this.#clock = clock;
    this.#logger = logger;
    const onMissing = (path: string): void => this.#missed(path);
    this.#registry = new RegistryMirror({
      clock,
      timers: this.#timers,
      logger,
      onMissing,
      onChange: (change) => tell(this.#listeners, change),
      commit: async (ops) => (this.#session.client ?? unconnected()).commit(ops),
    });
    this.#presence = new Presence({
      replica,
      logger,
      onMissing,
      onLeases: (leases) => tell(this.#leaseListeners, leases),
      onReplicas: (replicas) => tell(this.#replicaListeners, replicas),
    });
    this.#writer = new Writer({
      registry: this.#registry,
      timers: this.#timers,
      ready: (patience) => this.#ready(patience),
    });
    this.#session = new ZooKeeperSession({
      servers: this.#servers,
      sessionTimeoutMs,
      timers: this.#timers,
      logger,
      listener: {
        connected: (client) => void this.#meet(client),
        disconnected: (why) => this.#lose(why),
        event: (event) => this.#hear(event),
      },
    });
  }

  /**
   * Waits for ZooKeeper as long as it takes, and says so in the log: an Atlas that starts during an outage becomes ready by
   * itself. What waiting cannot mend is told at once.
   * @throws Fault `store_chroot` when the chroot does not exist, `store_realm` when it is another realm's
   */
  async open(): Promise<void> {
    if (this.#sight.kind !== "opening") return;
    this.#session.open();
    this.#tellWaiting(1_000);
    try {
      await this.#opened.promise;
    } catch (error) {
      await this.close();
      throw error;
    } finally {
      this.#timer?.();
    }
    this.#schedulePurge();
  }

  async close(): Promise<void> {
    this.#sight = { kind: "closed" };
    this.#timer?.();
    this.#opened.reject(new Fault({ code: "unavailable", message: "the store was closed" }));
    await this.#opened.promise.catch(() => undefined);
    this.#registry.end();
    this.#presence.end();
    for (const wake of this.#waiters.splice(0)) wake();
    await this.#session.close();
  }

  state(): LiveState {
    const { state } = this.#registry;
    if (state === undefined) throw new Fault({ code: "unavailable", message: "the store is not open" });
    return state;
  }

  onChange(listener: (change: LiveChange) => void): () => void {
    return subscribe(this.#listeners, listener);
  }

  updateInstance(
    service: string,
    instance: string,
    decide: (current: InstanceRecord | undefined) => InstanceDecision,
  ): Promise<Written> {
    const id = instanceId(service, instance);
    const plan: Decide = () => {
      const current = this.#registry.record(id);
      return [planDecision(this.#find, service, instance, current, decide(current))];
    };
    return this.#write(plan, { key: id, withinMs: WRITE_MS });
  }

  setDefinition(service: string, version: number, expected: number | undefined): Promise<Written> {
    return this.#moveVersion(definitionPath(service), () => this.state().definitions.get(service), version, expected);
  }

  deleteService(service: string, { force }: { readonly force: boolean }): Promise<Written> {
    const isInstance = (id: string): boolean => this.#registry.record(id)?.registration !== undefined;
    return this.#write(() => planDeleteService(this.#find, isInstance, service, force), { withinMs: WRITE_MS });
  }

  async setSettings(service: string, version: number, expected: number | undefined): Promise<Written> {
    const last = (): number | undefined => this.state().settings.get(service);
    const { changed } = await this.#moveVersion(settingsPath(service), last, version, expected);
    return { ...this.#position(), changed };
  }

  leases(): LeaseView {
    return this.#presence.leases;
  }

  onLeases(listener: (leases: LeaseView) => void): () => void {
    return subscribe(this.#leaseListeners, listener);
  }

  claimLease(lease: Lease): Promise<void> {
    return this.#presence.claim(lease);
  }

  releaseLease(host: string): Promise<void> {
    return this.#presence.release(host);
  }

  away(): LiveContent["away"] {
    return [...this.#registry.away.keys()].map(parseInstanceId);
  }

  /** Begins the generation with the last step: what broke off before is repeated, and watchers saw ordinary changes. */
  async restore(content: LiveContent): Promise<Position> {
    const decide: Decide = () => {
      const groups = planRestore(this.#find, content);
      return [...groups, planGeneration(this.#find, this.#registry.nextGeneration())];
    };
    await this.#write(decide, { withinMs: RESTORE_MS });
    return this.#position();
  }

  announce(url: string): Promise<void> {
    return this.#presence.announce(url);
  }

  replicas(): ReplicaView {
    return this.#presence.replicas;
  }

  onReplicas(listener: (replicas: ReplicaView) => void): () => void {
    return subscribe(this.#replicaListeners, listener);
  }

  onSight(listener: () => void): () => void {
    return subscribe(this.#sightListeners, listener);
  }

  problems(): readonly string[] {
    const all = [...this.#registry.problems, ...this.#presence.problems].map(([path, problem]) => `${path} ${problem}`);
    const more = all.length - PROBLEMS_TOLD;
    return more > 0
      ? [...all.slice(0, PROBLEMS_TOLD), `and ${more} more znodes make no sense; the log names them`]
      : all;
  }

  degraded(): string | undefined {
    if (this.#sight.kind === "here") return undefined;
    if (this.#sight.kind !== "away") return `ZooKeeper (${this.#servers.hosts}) is not reached yet`;
    const { since, why } = this.#sight;
    const at = new Date(since).toISOString().slice(11, 19);
    return (
      `ZooKeeper (${this.#servers.hosts}) is away since ${at} UTC: ${why}; ` +
      "reads and watches are served from memory, writes are refused"
    );
  }

  /**
   * Drops removals from before 24 h, and those of instances that somebody brought back by hand. Runs by itself; any replica
   * may, at any time.
   */
  async purge(): Promise<void> {
    const client = this.#session.client;
    if (client === undefined || this.#sight.kind !== "here") return;
    const present = (id: string): boolean => this.state().instances.has(id);
    const groups = planPurge(this.#find, this.#clock.now() - REMOVED_KEPT_MS, present);
    for (const transaction of transactionsOf(groups)) {
      const result = await tryCommit(client, transaction);
      // another replica was first: then the next time
      await (typeof result === "number" ? this.#registry.shown(result) : this.#registry.current());
    }
  }

  readonly #find = (path: string) => this.#registry.find(path);

  #position(): Position {
    const { generation, revision } = this.state();
    return { generation, revision };
  }

  async #write(decide: Decide, options: WriteOptions): Promise<Written> {
    const { zxid, changed } = await this.#writer.write(decide, options);
    const { generation, revision } = this.#position();
    return { generation, revision: zxid ?? revision, changed };
  }

  #moveVersion(path: string, last: () => number | undefined, version: number, expected: number | undefined) {
    const decide: Decide = () => {
      const node = this.#find(path);
      const reading = readNumber(node?.data ?? "");
      const current = node === undefined ? undefined : reading.ok ? reading.value : last();
      return [planVersion(node, path, current, version, expected)];
    };
    return this.#write(decide, { key: path, withinMs: WRITE_MS });
  }

  /**
   * The client, once everything was read through it.
   * @throws Fault `unavailable` when patience ends, or ZooKeeper is away for longer than a write may take
   */
  async #ready(patience: AbortSignal): Promise<ZooKeeperClient> {
    for (;;) {
      const { client } = this.#session;
      if (this.#sight.kind === "here" && client !== undefined) return client;
      const hopeless = this.#sight.kind === "away" && this.#timers.now() - this.#sight.since > WRITE_MS;
      const never = this.#sight.kind === "closed" || this.#registry.state === undefined;
      if (hopeless || never || patience.aborted) throw this.#unavailable();
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiters.push(resolve);
      patience.addEventListener("abort", () => resolve(), { once: true });
      await promise;
    }
  }

  #unavailable(): Fault {
    return new Fault({
      code: "unavailable",
      message: this.#sight.kind === "closed" ? "the store is closed" : (this.degraded() ?? "ZooKeeper is away"),
      hint: "Is a majority of the ZooKeeper servers up and reachable from here?",
    });
  }

  async #meet(client: ZooKeeperClient): Promise<void> {
    const connection = (this.#connection += 1);
    try {
      await this.#readEverything(client);
    } catch (error) {
      // the next connection begins anew
      if (isLoss(error) || connection !== this.#connection) return;
      if (this.#sight.kind === "opening" && error instanceof Fault && error.code.startsWith("store_")) {
        this.#opened.reject(error);
        return;
      }
      this.#logger.error({ err: error }, "ZooKeeper cannot be read; trying again");
      this.#timers.after(1_000, () => {
        if (connection === this.#connection && this.#session.client === client) void this.#meet(client);
      });
      return;
    }
    if (connection === this.#connection && this.#sight.kind !== "closed") this.#see();
  }

  async #readEverything(client: ZooKeeperClient): Promise<void> {
    const opening = this.#sight.kind === "opening";
    const zxid = await this.#reach(client, opening);
    const rewritten = zxid < this.#seen;
    this.#seen = zxid;
    if (opening) {
      await makeDirectories(client, [...DIRECTORIES, GENERATION], this.#realm, this.#registry.nextGeneration());
      await claimRealm(client, this.#realm, this.#servers);
    }
    this.#registry.begin(client, rewritten);
    this.#presence.begin(client);
    await Promise.all([this.#registry.current(), this.#presence.current()]);
    await this.#presence.putBack();
  }

  /** Where the log is now: a transaction that changes nothing is behind everything that was ever acknowledged. */
  async #reach(client: ZooKeeperClient, opening: boolean): Promise<Zxid> {
    try {
      return await client.commit([{ kind: "check", path: "/" }]);
    } catch (error) {
      if (errorCode(error) !== "no_node") throw error;
      // at the start it may be mistyped; later it was there, and somebody wiped ZooKeeper
      if (opening) throw chrootMissing(this.#servers);
      this.#logger.warn(`the chroot ${this.#servers.chroot} is gone; making it again`);
      await client.makeChroot();
      return client.commit([{ kind: "check", path: "/" }]);
    }
  }

  #see(): void {
    const opening = this.#sight.kind === "opening";
    this.#sight = { kind: "here" };
    for (const wake of this.#waiters.splice(0)) wake();
    if (opening) {
      this.#opened.resolve();
      return;
    }
    this.#logger.info("ZooKeeper is back, everything is read again");
    for (const listener of this.#sightListeners) listener();
  }

  #lose(why: string): void {
    this.#connection += 1;
    this.#missing.clear();
    this.#seen = Math.max(this.#seen, this.#registry.highest, this.#presence.highest);
    if (this.#sight.kind === "here") this.#sight = { kind: "away", since: this.#timers.now(), why };
    this.#registry.end();
    this.#presence.end();
  }

  #hear(event: NodeEvent): void {
    this.#registry.heard(event);
    this.#presence.heard(event);
  }

  /** A directory is gone: somebody deleted it, or ZooKeeper was wiped. */
  #missed(path: string): void {
    if (this.#missing.size === 0) queueMicrotask(() => void this.#makeMissing());
    this.#missing.add(path);
  }

  async #makeMissing(): Promise<void> {
    const { client } = this.#session;
    const connection = this.#connection;
    const paths = [...this.#missing];
    this.#missing.clear();
    if (client === undefined || paths.length === 0) return;
    this.#logger.warn({ paths }, `${paths.join(", ")} ${paths.length === 1 ? "is" : "are"} gone; making them again`);
    try {
      await makeDirectories(client, paths, this.#realm, this.#registry.nextGeneration());
    } catch (error) {
      if (isLoss(error)) return;
      this.#logger.error({ err: error, paths }, "ZooKeeper's directories cannot be made; trying again");
      await this.#timers.sleep(1_000);
    }
    if (connection !== this.#connection) return;
    this.#registry.retry();
    this.#presence.retry();
  }

  #tellWaiting(ms: number): void {
    this.#timer = this.#timers.after(ms, () => {
      const { hosts } = this.#servers;
      this.#logger.warn({ servers: hosts }, `waiting for ZooKeeper at ${hosts}: ${this.#session.trouble}`);
      this.#tellWaiting(TELL_EVERY_MS);
    });
  }

  #schedulePurge(): void {
    this.#timer = this.#clock.after(PURGE_EVERY_MS * (0.5 + Math.random()), () => {
      void this.purge().catch((error: unknown) => {
        if (!isLoss(error)) this.#logger.warn({ err: error }, "old removals cannot be dropped; trying again later");
      });
      this.#schedulePurge();
    });
  }
}

function unconnected(): never {
  throw new Fault({ code: "connection_loss", message: "ZooKeeper is not connected" });
}

function subscribe<T>(listeners: Set<T>, listener: T): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell<T>(listeners: ReadonlySet<(news: T) => void>, news: T): void {
  for (const listener of listeners) listener(news);
}
