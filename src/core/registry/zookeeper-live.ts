// The live half of the cluster store: the registry as znodes that people can read and write with zkCli.sh (docs/storage.md),
// mirrored in memory. Reads and watches are served from the mirror, also while ZooKeeper is away.
import { type Cancel, type Clock, steadyClock, systemClock } from "../lib/clock.ts";
import { Fault } from "../lib/errors.ts";
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
import { definitionPath, readNumber, settingsPath } from "./zookeeper-nodes.ts";
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
import { parseServers } from "./zookeeper-session.ts";
import { Sight } from "./zookeeper-sight.ts";
import { isLoss, tryCommit } from "./zookeeper-waits.ts";
import { type Decide, type WriteOptions, Writer } from "./zookeeper-writes.ts";

/** A write that ZooKeeper did not confirm by then fails. */
const WRITE_MS = 5_000;
/** As `WRITE_MS`, for what is many transactions: a restore, the end of a service. 10,000 instances take some 5 s. */
const LONG_WRITE_MS = 60_000;
/** How long a removal keeps its reason. */
const REMOVED_KEPT_MS = 24 * 3_600_000;
/** How often a replica looks for removals that are too old; it waits half to one and a half times as long. */
const PURGE_EVERY_MS = 600_000;
/** So many are enough to see what is going on. */
const PROBLEMS_TOLD = 10;

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

/** Opens nothing yet. @throws Fault `invalid` when `servers` is malformed */
export function createZooKeeperLive(options: ZooKeeperLiveOptions): ZooKeeperLive {
  return new ZooKeeperLive(options);
}

export class ZooKeeperLive implements LiveStore {
  readonly replica: string;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #registry: RegistryMirror;
  readonly #presence: Presence;
  readonly #sight: Sight;
  readonly #writer: Writer;
  readonly #listeners = new Set<(change: LiveChange) => void>();
  readonly #leaseListeners = new Set<(leases: LeaseView) => void>();
  readonly #replicaListeners = new Set<(replicas: ReplicaView) => void>();
  readonly #sightListeners = new Set<() => void>();
  #purging: Cancel | undefined;

  constructor(options: ZooKeeperLiveOptions) {
    const { servers, realm, clock = systemClock, logger = silentLogger } = options;
    const { sessionTimeoutMs = 10_000, replica = crypto.randomUUID() } = options;
    // the network's time is real, whatever a test makes of the time of day
    const timers = steadyClock;
    this.replica = replica;
    this.#clock = clock;
    this.#logger = logger;
    const onMissing = (path: string): void => this.#sight.missed(path);
    this.#registry = new RegistryMirror({
      clock,
      timers,
      logger,
      onMissing,
      onChange: (change) => tell(this.#listeners, change),
      commit: async (ops) => (this.#sight.client ?? unconnected()).commit(ops),
    });
    this.#presence = new Presence({
      replica,
      logger,
      onMissing,
      onLeases: (leases) => tell(this.#leaseListeners, leases),
      onReplicas: (replicas) => tell(this.#replicaListeners, replicas),
    });
    this.#sight = new Sight({
      servers: parseServers(servers),
      realm,
      sessionTimeoutMs,
      timers,
      logger,
      registry: this.#registry,
      presence: this.#presence,
      hopelessAfterMs: WRITE_MS,
      onRegained: () => {
        for (const listener of this.#sightListeners) listener();
      },
    });
    const ready = (patience: AbortSignal) => this.#sight.ready(patience);
    this.#writer = new Writer({ registry: this.#registry, timers, ready });
  }

  /**
   * Waits for ZooKeeper as long as it takes, and says so in the log: an Atlas that starts during an outage becomes ready by
   * itself. What waiting cannot mend is told at once.
   * @throws Fault `store_chroot` when the chroot does not exist, `store_realm` when it is another realm's
   */
  async open(): Promise<void> {
    if (this.#registry.state !== undefined) return;
    try {
      await this.#sight.open();
    } catch (error) {
      await this.close();
      throw error;
    }
    this.#schedulePurge();
  }

  async close(): Promise<void> {
    this.#purging?.();
    await this.#sight.close();
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
    const last = (): number | undefined => this.state().definitions.get(service);
    return this.#moveVersion(definitionPath(service), `the definition of ${service}`, last, version, expected);
  }

  deleteService(service: string, { force }: { readonly force: boolean }): Promise<Written> {
    const isInstance = (id: string): boolean => this.#registry.record(id)?.registration !== undefined;
    return this.#write(() => planDeleteService(this.#find, isInstance, service, force), { withinMs: LONG_WRITE_MS });
  }

  async setSettings(service: string, version: number, expected: number | undefined): Promise<Written> {
    const last = (): number | undefined => this.state().settings.get(service);
    const { changed } = await this.#moveVersion(
      settingsPath(service),
      `the settings of ${service}`,
      last,
      version,
      expected,
    );
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
    await this.#write(decide, { withinMs: LONG_WRITE_MS });
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
    return this.#sight.degraded();
  }

  /**
   * Drops removals from before 24 h, and those of instances that somebody brought back by hand. Runs by itself; any replica
   * may, at any time.
   */
  async purge(): Promise<void> {
    const { client } = this.#sight;
    if (client === undefined || this.degraded() !== undefined) return;
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

  /** @param last the version that counts where the node makes no sense */
  #moveVersion(
    path: string,
    what: string,
    last: () => number | undefined,
    version: number,
    expected: number | undefined,
  ): Promise<Written> {
    const decide: Decide = () => {
      const node = this.#find(path);
      const reading = readNumber(node?.data ?? "");
      const current = node === undefined ? undefined : reading.ok ? reading.value : last();
      return [planVersion(node, path, what, current, version, expected)];
    };
    return this.#write(decide, { key: path, withinMs: WRITE_MS });
  }

  #schedulePurge(): void {
    this.#purging = this.#clock.after(PURGE_EVERY_MS * (0.5 + Math.random()), () => {
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
