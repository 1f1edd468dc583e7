// Staying in touch with ZooKeeper: one client after another, each for one session.
import { fullJitter } from "../lib/backoff.ts";
import type { Cancel, Clock } from "../lib/clock.ts";
import { Fault } from "../lib/errors.ts";
import type { Logger } from "../lib/logger.ts";
import { type NodeEvent, ZooKeeperClient } from "./zookeeper-client.ts";

/** Where ZooKeeper is. */
export type Servers = {
  /** `HOST:PORT,HOST:PORT`. */
  readonly hosts: string;
  /** `/a/b`, or empty. */
  readonly chroot: string;
};

/** @throws Fault `invalid` when it is not `HOST:PORT,HOST:PORT,…[/chroot]` */
export function parseServers(text: string): Servers {
  const slash = text.indexOf("/");
  const hosts = slash < 0 ? text : text.slice(0, slash);
  const chroot = slash < 0 ? "" : text.slice(slash).replace(/\/$/, "");
  const soundHosts = hosts.split(",").every((host) => /^[A-Za-z0-9._-]+:\d{1,5}$/.test(host));
  if (soundHosts && /^(\/[A-Za-z0-9._-]+)*$/.test(chroot) && !/\/\.{1,2}(\/|$)/.test(chroot)) return { hosts, chroot };
  throw new Fault({
    code: "invalid",
    message: `"${text}" does not say where ZooKeeper is`,
    hint: "Write HOST:PORT,HOST:PORT,… and, if the realm shares ZooKeeper with others, a chroot such as /prod behind it.",
  });
}

type SessionListener = {
  /** A client is connected. */
  connected(client: ZooKeeperClient): void;
  /** No client is; every request has failed. */
  disconnected(why: string): void;
  event(event: NodeEvent): void;
};

export type SessionOptions = {
  readonly servers: Servers;
  /** Wanted, in ms. */
  readonly sessionTimeoutMs: number;
  readonly timers: Clock;
  readonly logger: Logger;
  readonly listener: SessionListener;
};

export class ZooKeeperSession {
  readonly #options: SessionOptions;
  #client: ZooKeeperClient | undefined;
  #connected: ZooKeeperClient | undefined;
  #failures = 0;
  #restart: Cancel | undefined;
  #closed = false;

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  /** The client, while it is connected. */
  get client(): ZooKeeperClient | undefined {
    return this.#connected;
  }

  /** Why there is no connection. */
  get trouble(): string {
    return this.#client?.trouble ?? "not connected yet";
  }

  open(): void {
    const { servers, sessionTimeoutMs, timers, logger, listener } = this.#options;
    const client = new ZooKeeperClient({
      ...servers,
      sessionTimeoutMs,
      timers,
      listener: {
        connected: () => {
          this.#failures = 0;
          this.#connected = client;
          logger.info({ session: client.session, timeoutMs: client.sessionTimeoutMs }, "connected to ZooKeeper");
          listener.connected(client);
        },
        disconnected: (why) => this.#lost(why),
        ended: (why) => {
          logger.warn({ session: client.session }, `the ZooKeeper session is over: ${why}; a new one begins`);
          if (this.#connected === client) this.#lost(why);
          if (this.#closed) return;
          const wait = fullJitter(this.#failures++, { baseMs: 100, capMs: 2_000 });
          this.#restart = timers.after(wait, () => this.open());
        },
        event: (event) => listener.event(event),
      },
    });
    this.#client = client;
    client.connect();
  }

  /** Ends the session, and with it all that it owns. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#restart?.();
    this.#connected = undefined;
    await this.#client?.close();
  }

  #lost(why: string): void {
    this.#connected = undefined;
    this.#options.logger.warn(`the connection to ZooKeeper is lost: ${why}`);
    this.#options.listener.disconnected(why);
  }
}
