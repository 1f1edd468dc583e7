// The leases that this replica holds: one for each agent that has a stream open here and keeps acking.
import type { Cancel, Clock } from "../core/lib/clock.ts";
import { ProblemFault } from "../core/lib/http.ts";
import type { Logger } from "../core/lib/logger.ts";
import type { Lease, LiveStore } from "../core/registry/live-store.ts";

/** An agent that acked within this time is live. Agents ack at least every 10 s. */
const LIVE_MS = 30_000;

/**
 * An agent's open stream. A timer of its own cuts it off when acks stop: a dead host's connection can look open for a quarter
 * of an hour, and comparing times of day would believe a clock that was set.
 */
type Connection = { readonly boot: string; readonly cut: (reason: string) => void; silence: Cancel };

export type LeasesOptions = { readonly live: LiveStore; readonly clock: Clock; readonly logger: Logger };

export class Leases {
  readonly #live: LiveStore;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #connections = new Map<string, Connection>();

  constructor({ live, clock, logger }: LeasesOptions) {
    this.#live = live;
    this.#clock = clock;
    this.#logger = logger;
  }

  /**
   * Takes the lease of a host for an agent that opens a stream. The same boot replaces its own older stream.
   * @param cut ends that stream, saying why
   * @returns what to call when the stream is over
   * @throws ProblemFault `conflict` while another boot of that host is live
   */
  async connect(lease: Lease, cut: (reason: string) => void): Promise<() => void> {
    const { host, boot } = lease;
    const other = this.#connections.get(host);
    if (other !== undefined && other.boot !== boot) {
      throw new ProblemFault(
        "conflict",
        `another agent of ${host} is live (boot ${other.boot}). Two machines with one name? Give each its own --host`,
      );
    }
    const connection: Connection = { boot, cut, silence: this.#expectAck(cut) };
    this.#connections.set(host, connection);
    other?.silence();
    other?.cut("the same agent opened a new stream");
    const leave = (): void => {
      connection.silence();
      if (this.#connections.get(host) !== connection) return;
      this.#connections.delete(host);
      void this.#live.releaseLease(host).catch((error: unknown) => {
        this.#logger.warn({ err: error, host }, "lease could not be released; it ends with this replica's session");
      });
    };
    try {
      await this.#live.claimLease(lease);
    } catch (error) {
      leave();
      throw error;
    }
    return leave;
  }

  /** The agent of a host gave a sign of life. */
  acked(host: string): void {
    const connection = this.#connections.get(host);
    if (connection === undefined) return;
    connection.silence();
    connection.silence = this.#expectAck(connection.cut);
  }

  stop(): void {
    for (const { silence } of this.#connections.values()) silence();
  }

  #expectAck(cut: (reason: string) => void): Cancel {
    return this.#clock.after(LIVE_MS, () => cut(`no ack for ${LIVE_MS / 1_000} s`));
  }
}
