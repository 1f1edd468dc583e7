// The other replicas: a stream from each, and what it told. Nothing here is needed to route or to write: a replica whose peers
// are silent serves on, and says of whom it knows nothing.
import type { AtlasClient } from "../core/api/atlas-client.ts";
import { followEvents, parseEvent } from "../core/api/event-stream.ts";
import { describeFailure } from "../core/api/exchange.ts";
import { fullJitter } from "../core/lib/backoff.ts";
import type { Clock } from "../core/lib/clock.ts";
import { Fault } from "../core/lib/errors.ts";
import type { Logger } from "../core/lib/logger.ts";
import type { SseEvent } from "../core/lib/sse.ts";
import type { Position } from "../core/model/position.ts";
import type { LiveStore, ReplicaView } from "../core/registry/live-store.ts";
import type { HostAck } from "./ack-book.ts";
import type { Agents, Elsewhere } from "./agents.ts";
import type { Leases } from "./leases.ts";
import { FEED_HEARTBEAT_MS, feedSchemas, presenceSchema } from "./peer-messages.ts";
import { type OpenWaits, wantsAck } from "./waits.ts";
import type { WatchHub } from "./watch-hub.ts";

/** A peer that says nothing for so long, in ms, does not answer: three of its heartbeats. */
const SILENCE_MS = 3 * FEED_HEARTBEAT_MS;
const RECONNECT = { baseMs: 100, capMs: 1_000 };
/** An agent waits for the answer, and a replica that is gone must not keep it from its lease. */
const ASK_MS = 2_000;

/** Where what peers tell goes. */
export type PeerListener = {
  /** `fresh`: they came just now; otherwise the peer repeats what it knows. */
  onAcks(replica: string, acks: readonly HostAck[], fresh: boolean): void;
  /** Somebody waits at a peer for what was written there. */
  onWaits(positions: readonly Position[]): void;
  onForgotten(host: string): void;
  /** `holding()` may have changed. */
  onHolds(): void;
};

/** What this replica does with what the others tell. */
export function hearPeers(parts: {
  readonly agents: Agents;
  readonly leases: Leases;
  readonly hub: WatchHub;
}): PeerListener {
  const { agents, leases, hub } = parts;
  return {
    onAcks(replica, acks, fresh) {
      agents.hear(replica, acks, fresh);
      // one of ours may ack elsewhere, and lives all the same
      if (fresh) for (const { host } of acks) leases.acked(host);
    },
    onWaits(positions) {
      for (const position of positions) hub.askForAcks(position);
    },
    onForgotten: (host) => agents.forgotten(host),
    onHolds: () => agents.reconsider(),
  };
}

type Peer = {
  readonly replica: string;
  readonly url: string;
  readonly ending: AbortController;
  /** `undefined`: it answers. Else when it began not to, or we began to ask. */
  silentSince: number | undefined;
  heardAt: number;
  /** Why it does not answer, once that is known. */
  failure: string | undefined;
  waits: OpenWaits;
  holds: boolean;
};

/** So many replicas that left are remembered. */
const LEFT_KEPT = 100;

const NO_WAITS: OpenWaits = { writes: 0, positions: [] };

export type PeersOptions = {
  readonly live: LiveStore;
  readonly clock: Clock;
  readonly logger: Logger;
  /** A client of the replica at that URL. Asked anew for every exchange: tokens change. */
  readonly connect: (url: string) => AtlasClient;
};

export class Peers implements Elsewhere {
  readonly #live: LiveStore;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #connect: PeersOptions["connect"];
  readonly #peers = new Map<string, Peer>();
  /** Replicas that are no longer announced → where they were: cut off from the store, they may still have agents. */
  readonly #left = new Map<string, string>();
  readonly #streams = new Set<Promise<void>>();
  #unsubscribe: (() => void) | undefined;

  constructor({ live, clock, logger, connect }: PeersOptions) {
    this.#live = live;
    this.#clock = clock;
    this.#logger = logger;
    this.#connect = connect;
  }

  /** Begins to follow every other replica, those that come later too. */
  start(listener: PeerListener): void {
    this.#unsubscribe = this.#live.onReplicas((replicas) => this.#meet(replicas, listener));
    this.#meet(this.#live.replicas(), listener);
  }

  answers(replica: string): boolean {
    const peer = this.#peers.get(replica);
    return peer !== undefined && peer.silentSince === undefined;
  }

  holding(): string | undefined {
    for (const { replica, holds, silentSince } of this.#peers.values()) {
      if (holds && silentSince === undefined) return replica;
    }
    return undefined;
  }

  /** Whether somebody may wait elsewhere for a change of (since, revision]. */
  wantsAck(since: number, revision: number): boolean {
    for (const { waits } of this.#peers.values()) if (wantsAck(waits, since, revision)) return true;
    return false;
  }

  /**
   * The boot of the agent that is live at another replica, or at one that was; undefined: none is, or it does not answer.
   * A replica that does not see the store sends that agent away.
   */
  async liveBoot(replica: string, host: string): Promise<string | undefined> {
    const url = this.#peers.get(replica)?.url ?? this.#left.get(replica);
    if (url === undefined) return undefined;
    try {
      const path = `/v1/peer/agents/${encodeURIComponent(host)}`;
      const { boot } = await this.#connect(url).request(path, { schema: presenceSchema, timeoutMs: ASK_MS });
      return boot ?? undefined;
    } catch (error) {
      this.#logger.warn({ err: error, host, replica }, "a replica cannot be asked whether an agent is live there");
      return undefined;
    }
  }

  /** Which replicas do not answer, in words. */
  degraded(): readonly string[] {
    const now = this.#clock.now();
    return [...this.#peers.values()]
      .filter(({ silentSince }) => silentSince !== undefined && now - silentSince >= SILENCE_MS)
      .map(({ replica, url, failure }) => {
        const why = failure === undefined ? "" : ` (${failure})`;
        return `the replica ${replica} at ${url} does not answer${why}; what its agents applied is unknown`;
      });
  }

  async stop(): Promise<void> {
    this.#unsubscribe?.();
    for (const { ending } of this.#peers.values()) ending.abort();
    this.#peers.clear();
    await Promise.all(this.#streams);
  }

  #meet(replicas: ReplicaView, listener: PeerListener): void {
    for (const [replica, peer] of this.#peers) {
      if (replicas.get(replica) === peer.url) continue;
      peer.ending.abort();
      this.#peers.delete(replica);
      this.#left.set(replica, peer.url);
      for (const oldest of this.#left.keys()) if (this.#left.size > LEFT_KEPT) this.#left.delete(oldest);
      if (peer.holds) listener.onHolds();
    }
    for (const [replica, url] of replicas) {
      if (replica === this.#live.replica || this.#peers.has(replica)) continue;
      const peer: Peer = {
        replica,
        url,
        ending: new AbortController(),
        silentSince: this.#clock.now(),
        heardAt: this.#clock.now(),
        failure: undefined,
        waits: NO_WAITS,
        holds: false,
      };
      this.#peers.set(replica, peer);
      this.#left.delete(replica);
      const stream = this.#follow(peer, listener).finally(() => this.#streams.delete(stream));
      this.#streams.add(stream);
    }
  }

  async #follow(peer: Peer, listener: PeerListener): Promise<void> {
    const { replica, url, ending } = peer;
    for (let failures = 0; !ending.signal.aborted; failures += 1) {
      const failure = await this.#read(peer, listener, () => {
        failures = 0;
      }).catch((error: unknown) => (error instanceof Fault ? error.message : describeFailure(error)));
      if (ending.signal.aborted) return;
      peer.failure = failure;
      if (peer.silentSince === undefined) {
        this.#logger.warn({ replica, url }, `the replica ${replica} does not answer: ${failure}`);
        peer.silentSince = peer.heardAt;
      }
      peer.waits = NO_WAITS;
      if (peer.holds) {
        peer.holds = false;
        listener.onHolds();
      }
      await this.#clock.sleep(fullJitter(failures, RECONNECT), ending.signal).catch(ignoreAbort);
    }
  }

  /** @returns never by itself: it throws why the stream ended */
  #read(peer: Peer, listener: PeerListener, onHello: () => void): Promise<never> {
    return followEvents({
      client: this.#connect(peer.url),
      url: peer.url,
      path: `/v1/peer/feed?replica=${encodeURIComponent(this.#live.replica)}`,
      silenceMs: SILENCE_MS,
      clock: this.#clock,
      signal: peer.ending.signal,
      take: (event) => {
        peer.heardAt = this.#clock.now();
        this.#take(peer, event, listener);
        if (event.event === "hello") onHello();
      },
    });
  }

  #take(peer: Peer, event: SseEvent, listener: PeerListener): void {
    const { replica } = peer;
    switch (event.event) {
      case "hello": {
        const hello = parseEvent(event, feedSchemas.hello, "a replica");
        // a replica that was killed is announced until its session ends; who listens there now may be another
        if (hello.replica !== replica)
          throw new Fault({ code: "other_replica", message: `${peer.url} is the replica ${hello.replica} now` });
        if (peer.silentSince !== undefined) this.#logger.info({ replica, url: peer.url }, "following a replica");
        peer.silentSince = undefined;
        listener.onAcks(replica, hello.acks, false);
        this.#learn(peer, hello, listener);
        return;
      }
      case "acks":
        listener.onAcks(replica, parseEvent(event, feedSchemas.acks, "a replica"), true);
        return;
      case "state":
        this.#learn(peer, parseEvent(event, feedSchemas.state, "a replica"), listener);
        return;
      case "forgotten":
        listener.onForgotten(parseEvent(event, feedSchemas.forgotten, "a replica").host);
        return;
      default:
        // a heartbeat, or what a newer replica says
        return;
    }
  }

  #learn(peer: Peer, state: { readonly waits: OpenWaits; readonly holds: boolean }, listener: PeerListener): void {
    peer.waits = state.waits;
    if (state.waits.positions.length > 0) listener.onWaits(state.waits.positions);
    if (peer.holds === state.holds) return;
    peer.holds = state.holds;
    listener.onHolds();
  }
}

function ignoreAbort(): void {
  // the end of a wait is no failure
}
