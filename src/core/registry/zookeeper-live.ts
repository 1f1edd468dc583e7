// The live half of the cluster store.
import { type Clock, systemClock } from "../lib/clock.ts";
import { Fault } from "../lib/errors.ts";
import { type Logger, silentLogger } from "../lib/logger.ts";
import type { Position } from "../model/position.ts";
import type { LeaseView, LiveContent, LiveState, LiveStore, ReplicaView, Written } from "./live-store.ts";

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
export function createZooKeeperLive(options: ZooKeeperLiveOptions): LiveStore {
  return new ZooKeeperLive(options);
}

class ZooKeeperLive implements LiveStore {
  readonly replica: string;
  readonly #options: Required<ZooKeeperLiveOptions>;

  constructor(options: ZooKeeperLiveOptions) {
    this.#options = {
      clock: systemClock,
      logger: silentLogger,
      sessionTimeoutMs: 10_000,
      replica: crypto.randomUUID(),
      ...options,
    };
    this.replica = this.#options.replica;
  }

  async open(): Promise<void> {
    throw this.#unavailable();
  }
  async close(): Promise<void> {}
  state(): LiveState {
    throw this.#unavailable();
  }
  onChange(): () => void {
    return () => undefined;
  }
  async updateInstance(): Promise<Written> {
    throw this.#unavailable();
  }
  async setDefinition(): Promise<Written> {
    throw this.#unavailable();
  }
  async deleteService(): Promise<Written> {
    throw this.#unavailable();
  }
  async setSettings(): Promise<Written> {
    throw this.#unavailable();
  }
  leases(): LeaseView {
    return new Map();
  }
  onLeases(): () => void {
    return () => undefined;
  }
  async claimLease(): Promise<void> {
    throw this.#unavailable();
  }
  async releaseLease(): Promise<void> {}
  away(): LiveContent["away"] {
    return [];
  }
  async restore(): Promise<Position> {
    throw this.#unavailable();
  }
  async announce(): Promise<void> {
    throw this.#unavailable();
  }
  replicas(): ReplicaView {
    return new Map();
  }
  onReplicas(): () => void {
    return () => undefined;
  }
  onSight(): () => void {
    return () => undefined;
  }
  degraded(): string | undefined {
    return this.#unavailable().message;
  }

  #unavailable(): Fault {
    return new Fault({ code: "unavailable", message: `ZooKeeper (${this.#options.servers}) is not reached yet` });
  }
}
