// The leases that this replica holds: one for each agent that has a stream open here and keeps acking.
import type { Cancel, Clock } from "../core/lib/clock.ts";
import { ProblemFault } from "../core/lib/http.ts";
import type { Logger } from "../core/lib/logger.ts";
import type { Lease, LeaseView, LiveStore } from "../core/registry/live-store.ts";

/** An agent that acked within this time is live. Agents ack at least every 10 s. */
const LIVE_MS = 30_000;

/**
 * An agent's open stream. A timer of its own cuts it off when acks stop: a dead host's connection can look open for a quarter
 * of an hour, and comparing times of day would believe a clock that was set.
 */
type Connection = {
  readonly lease: Lease;
  readonly cut: (reason: string) => void;
  silence: Cancel;
  /** The store has shown our claim: what it shows from now on was meant to follow it. */
  shown: boolean;
};

/** So long, in ms, an agent that was sent on counts as live here: it is on its way, and a third replica may ask meanwhile. */
const SENT_ON_MS = 20_000;

export type LeasesOptions = {
  readonly live: LiveStore;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The boot of the agent of a host that is live at another replica; undefined: none, or that replica does not answer. */
  readonly liveBoot: (replica: string, host: string) => Promise<string | undefined>;
};

export class Leases {
  readonly #live: LiveStore;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #liveBoot: LeasesOptions["liveBoot"];
  readonly #connections = new Map<string, Connection>();
  /** Hosts whose agents were sent on, because this replica did not see the store. */
  readonly #sentOn = new Map<string, { readonly boot: string; readonly at: number }>();
  readonly #unsubscribe: () => void;

  constructor({ live, clock, logger, liveBoot }: LeasesOptions) {
    this.#live = live;
    this.#clock = clock;
    this.#logger = logger;
    this.#liveBoot = liveBoot;
    this.#unsubscribe = live.onLeases((leases) => {
      for (const connection of this.#connections.values()) this.#compare(connection, leases);
    });
  }

  /** The boot of the agent of a host that has a stream open here and keeps acking. */
  bootOf(host: string): string | undefined {
    return this.#connections.get(host)?.lease.boot;
  }

  /**
   * As `bootOf`, for another replica that asks because it sees no such lease, or another. While this one does not see the store,
   * what it serves grows old: the agent is sent to where it is seen.
   */
  presence(host: string): string | undefined {
    const connection = this.#connections.get(host);
    const now = this.#clock.now();
    if (connection === undefined) {
      const sent = this.#sentOn.get(host);
      return sent !== undefined && now - sent.at < SENT_ON_MS ? sent.boot : undefined;
    }
    const { boot } = connection.lease;
    if (this.#live.degraded() !== undefined) {
      this.#sentOn.set(host, { boot, at: now });
      connection.cut("this replica does not see the store, and another one does");
    }
    return boot;
  }

  /**
   * Takes the lease of a host for an agent that opens a stream. The same boot replaces its own older stream, wherever that is.
   * @param cut ends that stream, saying why
   * @returns what to call when the stream is over
   * @throws ProblemFault `conflict` while another boot of that host is live, here or at another replica
   */
  async connect(lease: Lease, cut: (reason: string) => void): Promise<() => void> {
    const { host, boot } = lease;
    await this.#refuseSecond(lease);
    const other = this.#connections.get(host);
    const connection: Connection = { lease, cut, silence: this.#expectAck(cut), shown: false };
    this.#connections.set(host, connection);
    other?.silence();
    other?.cut("the same agent opened a new stream");
    const before = this.#live.leases().get(host);
    if (before !== undefined && before.replica !== this.#live.replica)
      this.#logger.info({ host, from: before.replica, boot }, "taking over the lease of an agent from another replica");
    try {
      await this.#live.claimLease(lease);
    } catch (error) {
      this.#leave(connection);
      throw error;
    }
    this.#compare(connection, this.#live.leases());
    return this.#leaverOf(connection);
  }

  /** The agent of a host gave a sign of life. */
  acked(host: string): void {
    const connection = this.#connections.get(host);
    if (connection === undefined) return;
    connection.silence();
    connection.silence = this.#expectAck(connection.cut);
  }

  stop(): void {
    this.#unsubscribe();
    for (const { silence } of this.#connections.values()) silence();
  }

  async #refuseSecond({ host, boot }: Lease): Promise<void> {
    const held = this.#live.leases().get(host);
    // our own connections are looked at last: one may come while the other replica is asked
    if (held !== undefined && held.replica !== this.#live.replica && held.boot !== boot) {
      const there = await this.#liveBoot(held.replica, host);
      if (there !== undefined && there !== boot) throw secondBoot(host, there, ` at the replica ${held.replica}`);
    }
    const here = this.bootOf(host);
    if (here !== undefined && here !== boot) throw secondBoot(host, here, "");
  }

  /** What the store shows of a lease that is ours. */
  #compare(connection: Connection, leases: LeaseView): void {
    const { host, boot } = connection.lease;
    // it may be over by now
    if (this.#connections.get(host) !== connection) return;
    const shown = leases.get(host);
    if (shown?.replica === this.#live.replica && shown.boot === boot) connection.shown = true;
    else if (connection.shown && shown !== undefined && shown.replica !== this.#live.replica)
      this.#giveUp(connection, shown.replica);
  }

  /** The agent is elsewhere; what it left here is a stream that nobody reads. */
  #giveUp(connection: Connection, replica: string): void {
    const { host } = connection.lease;
    connection.silence();
    // without its place here the end of the stream releases nothing
    this.#connections.delete(host);
    this.#logger.info({ host, to: replica }, "the lease of an agent went to another replica");
    connection.cut(`the lease of ${host} is held by the replica ${replica} now`);
  }

  // apart from `connect`, whose closures would hold on to all that it was called with
  #leaverOf(connection: Connection): () => void {
    return () => this.#leave(connection);
  }

  #leave(connection: Connection): void {
    connection.silence();
    const { host } = connection.lease;
    if (this.#connections.get(host) !== connection) return;
    this.#connections.delete(host);
    void this.#live.releaseLease(host).catch((error: unknown) => {
      this.#logger.warn({ err: error, host }, "lease could not be released; it ends with this replica's session");
    });
  }

  #expectAck(cut: (reason: string) => void): Cancel {
    return this.#clock.after(LIVE_MS, () => cut(`no ack for ${LIVE_MS / 1_000} s`));
  }
}

function secondBoot(host: string, boot: string, where: string): ProblemFault {
  return new ProblemFault(
    "conflict",
    `another agent of ${host} is live${where} (boot ${boot}). Two machines with one name? Give each its own --host`,
  );
}
