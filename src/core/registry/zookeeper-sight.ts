// Keeping the mirrors at ZooKeeper: what happens when a connection comes and goes, and what is said of it meanwhile.
import { type Cancel, type Clock } from "../lib/clock.ts";
import { errorCode, Fault } from "../lib/errors.ts";
import type { Logger } from "../lib/logger.ts";
import type { Zxid, ZooKeeperClient } from "./zookeeper-client.ts";
import { chrootMissing, claimRealm, makeDirectories } from "./zookeeper-layout.ts";
import { DIRECTORIES, GENERATION } from "./zookeeper-nodes.ts";
import type { Presence } from "./zookeeper-presence.ts";
import type { RegistryMirror } from "./zookeeper-registry.ts";
import { type Servers, ZooKeeperSession } from "./zookeeper-session.ts";
import { isLoss } from "./zookeeper-waits.ts";

/** How often one that still waits for its first connection says so. */
const TELL_EVERY_MS = 10_000;

export type SightOptions = {
  readonly servers: Servers;
  readonly realm: string;
  readonly sessionTimeoutMs: number;
  /** Of the network: never a test's. */
  readonly timers: Clock;
  readonly logger: Logger;
  readonly registry: RegistryMirror;
  readonly presence: Presence;
  /** An outage of this length, in ms, will not be over within a write's patience. */
  readonly hopelessAfterMs: number;
  /** It sees again after it could not. */
  readonly onRegained: () => void;
};

type State = { readonly kind: "opening" | "here" | "closed" } | { readonly kind: "away"; readonly since: number };

export class Sight {
  readonly #options: SightOptions;
  readonly #session: ZooKeeperSession;
  readonly #opened = Promise.withResolvers<void>();
  readonly #missing = new Set<string>();
  #state: State = { kind: "opening" };
  #waiters: (() => void)[] = [];
  /** Counts connections, so that what one began does not end in another. */
  #connection = 0;
  /** The highest place in ZooKeeper's log that was seen. */
  #seen: Zxid = 0;
  #telling: Cancel | undefined;
  #giveUp: Cancel | undefined;

  constructor(options: SightOptions) {
    this.#options = options;
    const { registry, presence } = options;
    this.#session = new ZooKeeperSession({
      ...options,
      listener: {
        connected: (client) => void this.#meet(client),
        disconnected: () => this.#lose(),
        event: (event) => {
          registry.heard(event);
          presence.heard(event);
        },
      },
    });
  }

  /** The client, while one is connected. */
  get client(): ZooKeeperClient | undefined {
    return this.#session.client;
  }

  /**
   * Resolves when everything was read, however long that takes; the log says what it waits for.
   * @throws Fault `store_chroot`, `store_realm`: waiting cannot mend them
   */
  async open(): Promise<void> {
    this.#session.open();
    this.#tellWaiting(1_000);
    try {
      await this.#opened.promise;
    } finally {
      this.#telling?.();
    }
  }

  async close(): Promise<void> {
    this.#state = { kind: "closed" };
    this.#giveUp?.();
    this.#opened.reject(new Fault({ code: "unavailable", message: "the store was closed" }));
    await this.#opened.promise.catch(() => undefined);
    this.#options.registry.end();
    this.#options.presence.end();
    this.#wake();
    await this.#session.close();
  }

  /** Why ZooKeeper cannot be written, in words, or undefined. */
  degraded(): string | undefined {
    const { hosts } = this.#options.servers;
    switch (this.#state.kind) {
      case "here":
        return undefined;
      case "closed":
        return "the store is closed";
      case "opening":
        return `ZooKeeper (${hosts}) is not reached yet: ${this.#session.trouble}`;
      case "away": {
        const at = new Date(this.#state.since).toISOString().slice(11, 19);
        const why = this.client === undefined ? this.#session.trouble : "it is back, and is being read";
        return (
          `ZooKeeper (${hosts}) is away since ${at} UTC: ${why}; ` +
          "reads and watches are served from memory, writes are refused"
        );
      }
    }
  }

  /**
   * The client, once everything was read through it.
   * @throws Fault `unavailable` when patience ends, or at once when ZooKeeper is away for long already
   */
  async ready(patience: AbortSignal): Promise<ZooKeeperClient> {
    const { timers, hopelessAfterMs } = this.#options;
    for (;;) {
      const state = this.#state;
      const { client } = this;
      if (state.kind === "here" && client !== undefined) return client;
      const hopeless = state.kind === "away" && timers.now() - state.since >= hopelessAfterMs;
      if (hopeless || state.kind === "opening" || state.kind === "closed" || patience.aborted) {
        throw new Fault({
          code: "unavailable",
          message: this.degraded() ?? "ZooKeeper did not answer in time",
          hint: "Is a majority of the ZooKeeper servers up and reachable from here?",
        });
      }
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiters.push(resolve);
      patience.addEventListener("abort", () => resolve(), { once: true });
      await promise;
    }
  }

  /** A directory is gone: somebody deleted it, or ZooKeeper was wiped. */
  missed(path: string): void {
    if (this.#missing.size === 0) queueMicrotask(() => void this.#makeMissing());
    this.#missing.add(path);
  }

  async #meet(client: ZooKeeperClient): Promise<void> {
    const { logger, timers } = this.#options;
    const connection = (this.#connection += 1);
    try {
      await this.#readEverything(client);
    } catch (error) {
      // the next connection begins anew
      if (isLoss(error) || connection !== this.#connection) return;
      if (this.#state.kind === "opening" && (errorCode(error) ?? "").startsWith("store_")) {
        this.#opened.reject(error);
        return;
      }
      logger.error({ err: error }, "ZooKeeper cannot be read; trying again");
      await timers.sleep(1_000);
      if (connection === this.#connection && this.client === client) void this.#meet(client);
      return;
    }
    if (connection === this.#connection && this.#state.kind !== "closed") this.#see();
  }

  async #readEverything(client: ZooKeeperClient): Promise<void> {
    const { realm, servers, registry, presence } = this.#options;
    const opening = this.#state.kind === "opening";
    const zxid = await this.#reach(client, opening);
    const rewritten = zxid < this.#seen;
    this.#seen = zxid;
    if (opening) {
      await makeDirectories(client, [...DIRECTORIES, GENERATION], realm, registry.nextGeneration());
      await claimRealm(client, realm, servers);
    }
    registry.begin(client, rewritten);
    presence.begin(client);
    await Promise.all([registry.current(), presence.current()]);
    await presence.putBack();
    // what the reads left behind is a third of an Atlas's memory (10,000 instances: 172 MB with it, 119 MB without), and the
    // collector by itself would keep it for good; it takes 20 ms
    Bun.gc(true);
  }

  /** Where the log is now: a transaction that changes nothing is behind everything that was ever acknowledged. */
  async #reach(client: ZooKeeperClient, opening: boolean): Promise<Zxid> {
    const { servers, logger } = this.#options;
    try {
      return await client.commit([{ kind: "check", path: "/" }]);
    } catch (error) {
      if (errorCode(error) !== "no_node") throw error;
      // at the start it may be mistyped; later it was there, and somebody wiped ZooKeeper
      if (opening) throw chrootMissing(servers);
      logger.warn(`the chroot ${servers.chroot} is gone; making it again`);
      await client.makeChroot();
      return client.commit([{ kind: "check", path: "/" }]);
    }
  }

  #see(): void {
    const opening = this.#state.kind === "opening";
    this.#giveUp?.();
    this.#state = { kind: "here" };
    this.#wake();
    if (opening) {
      this.#opened.resolve();
      return;
    }
    this.#options.logger.info("ZooKeeper is back, everything is read again");
    this.#options.onRegained();
  }

  #lose(): void {
    const { registry, presence, timers, hopelessAfterMs } = this.#options;
    this.#connection += 1;
    this.#missing.clear();
    this.#seen = Math.max(this.#seen, registry.highest, presence.highest);
    if (this.#state.kind === "here") {
      this.#state = { kind: "away", since: timers.now() };
      // who waits by then, however patient, waits for nothing
      this.#giveUp = timers.after(hopelessAfterMs + 10, () => this.#wake());
    }
    registry.end();
    presence.end();
  }

  #wake(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  async #makeMissing(): Promise<void> {
    const { client } = this;
    const { realm, registry, presence, logger, timers } = this.#options;
    const connection = this.#connection;
    const paths = [...this.#missing];
    this.#missing.clear();
    if (client === undefined || paths.length === 0) return;
    logger.warn({ paths }, `${paths.join(", ")} ${paths.length === 1 ? "is" : "are"} gone; making them again`);
    try {
      await makeDirectories(client, paths, realm, registry.nextGeneration());
    } catch (error) {
      if (isLoss(error)) return;
      logger.error({ err: error, paths }, "ZooKeeper's directories cannot be made; trying again");
      await timers.sleep(1_000);
    }
    if (connection !== this.#connection) return;
    registry.retry();
    presence.retry();
  }

  #tellWaiting(ms: number): void {
    const { servers, logger, timers } = this.#options;
    this.#telling = timers.after(ms, () => {
      const why = this.client === undefined ? this.#session.trouble : "it is being read";
      logger.warn(`waiting for ZooKeeper at ${servers.hosts}: ${why}`);
      this.#tellWaiting(TELL_EVERY_MS);
    });
  }
}
