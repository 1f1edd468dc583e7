// The agents of the realm: who is here, what each has applied, and that the instances of one that is gone expire. Whether an
// agent is here is what the leases in the live store say, so every replica sees the same.
import type { Clock } from "../core/lib/clock.ts";
import { Fault } from "../core/lib/errors.ts";
import { ProblemFault } from "../core/lib/http.ts";
import type { Logger } from "../core/lib/logger.ts";
import type { Ack, Agent, Rejection } from "../core/model/agent.ts";
import type { Position } from "../core/model/position.ts";
import type { Delta } from "../core/model/snapshot.ts";
import type { LeaseView, LiveStore } from "../core/registry/live-store.ts";
import { AckBook, type HostAck } from "./ack-book.ts";
import { Graces } from "./graces.ts";
import type { Registry, RegistryState } from "./registry.ts";

type Entry = {
  readonly host: string;
  zone: string;
  version: string;
  /** Who held its lease last. */
  replica: string | undefined;
};

/** What waits and peers want to know about. */
export type AgentEvent =
  | { readonly kind: "joined"; readonly host: string }
  /** `news`: it was acked here, and the other replicas do not know. */
  | { readonly kind: "acked"; readonly host: string; readonly news: HostAck | undefined }
  /** It counts no more. */
  | { readonly kind: "left"; readonly host: string }
  /** An operator told this replica that it will not return. */
  | { readonly kind: "forgotten"; readonly host: string }
  /** `holds` changed. */
  | { readonly kind: "holds" };

/** What an agent has done, as waits and `GET /v1/changes` count it. */
export type AgentStatus = {
  readonly host: string;
  /** It has a stream open, at a replica that tells us of it. */
  readonly connected: boolean;
  readonly applied: Position | undefined;
  readonly rejected: readonly Rejection[];
};

/** What the other replicas say. */
export type Elsewhere = {
  /** Whether a replica tells us of its agents. */
  answers(replica: string): boolean;
  /** A replica that stopped expiry by its own count. */
  holding(): string | undefined;
  /** The boot of the agent of a host that is live at another replica, though the store may not say so. */
  liveBoot(replica: string, host: string): Promise<string | undefined>;
};

export type AgentsOptions = {
  readonly live: LiveStore;
  readonly registry: Registry;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly elsewhere: Elsewhere;
  /** Removes the instances of a host whose grace is over; called again later when it throws. */
  readonly expire: (host: string) => Promise<void>;
};

export class Agents {
  readonly #live: LiveStore;
  readonly #registry: Registry;
  readonly #elsewhere: Elsewhere;
  readonly #entries = new Map<string, Entry>();
  readonly #graces: Graces;
  readonly #acks = new AckBook();
  readonly #listeners = new Set<(event: AgentEvent) => void>();
  readonly #unsubscribes: readonly (() => void)[];
  #followed: LeaseView = new Map();
  #owners: { readonly of: RegistryState["instances"]; readonly hosts: ReadonlySet<string> };

  /** Every agent that owns instances gets a fresh grace: it could not have been watching while we were not there. */
  constructor({ live, registry, clock, logger, elsewhere, expire }: AgentsOptions) {
    this.#live = live;
    this.#registry = registry;
    this.#elsewhere = elsewhere;
    this.#owners = ownersOf(registry.state().instances);
    this.#graces = new Graces({
      clock,
      logger,
      blind: () => live.degraded() !== undefined,
      holding: () => elsewhere.holding(),
      expire: async (host) => {
        if (this.#owns(host)) {
          await this.#refuseLive(host);
          logger.warn({ host }, "the agent did not return within its grace; its instances expire");
        }
        await expire(host);
      },
      onHeld: (host) => {
        if (!this.#counts(host)) this.#emit({ kind: "left", host });
      },
      onGone: (host) => {
        this.#entries.delete(host);
        this.#acks.drop(host);
        this.#emit({ kind: "left", host });
      },
      onHolds: () => this.#emit({ kind: "holds" }),
    });
    this.#meetOwners([...registry.state().instances.values()]);
    this.#follow(live.leases());
    this.#unsubscribes = [
      live.onLeases((leases) => this.#follow(leases)),
      live.onSight(() => this.#graces.beginAnew()),
      registry.on((event) => {
        if (event.kind === "delta") this.#take(event.delta);
        else if (event.kind === "reset") this.#meetOwners([...registry.state().instances.values()]);
        for (const host of this.#acks.caughtUp(registry.state())) this.#emit({ kind: "acked", host, news: undefined });
      }),
    ];
  }

  /** How many agents count: a lease that lives, grace included. */
  get size(): number {
    return this.#entries.size - this.#graces.held().filter((host) => !this.#counts(host)).length;
  }

  /** Expiry stopped by the count of this replica. */
  get holds(): boolean {
    return this.#graces.holds;
  }

  on(listener: (event: AgentEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** @throws ProblemFault `not_found` when nobody knows that agent */
  acknowledge(host: string, { generation, revision, rejected }: Ack): void {
    const entry = this.#entries.get(host);
    if (entry === undefined) {
      throw new ProblemFault(
        "not_found",
        `no agent of ${host} holds a lease; it opens a watch with agent= and boot= first`,
      );
    }
    const now = this.#registry.state();
    const here = this.#live.replica;
    const isOurs = entry.replica === undefined || entry.replica === here;
    this.#graces.alive(host);
    // nobody can run what was never sent to him: a store that was set back must not find its new changes applied already
    if (isOurs && generation === now.generation && revision > now.revision) {
      this.#acks.void(host);
      this.#emit({ kind: "acked", host, news: undefined });
      return;
    }
    const ack: HostAck = { host, boot: this.#acks.bootOf(host), generation, revision, rejected };
    const isNew = this.#acks.take(ack, { by: here, holder: entry.replica, now });
    // the replica that holds its lease must hear every sign of life
    this.#emit({ kind: "acked", host, news: isNew || !isOurs ? ack : undefined });
  }

  /**
   * A peer tells of acks that it got.
   * @param fresh they came just now; otherwise it repeats what it knows
   */
  hear(replica: string, acks: readonly HostAck[], fresh: boolean): void {
    const now = this.#registry.state();
    for (const ack of acks) {
      const { host } = ack;
      if (fresh) this.#graces.alive(host);
      const isNew = this.#acks.take(ack, { by: replica, holder: this.#entries.get(host)?.replica, now });
      if (isNew) this.#emit({ kind: "acked", host, news: undefined });
    }
  }

  /** The last acks that came to this replica. */
  ownAcks(): readonly HostAck[] {
    return this.#acks.from(this.#live.replica);
  }

  /** Every agent that counts, by host. */
  statuses(): readonly AgentStatus[] {
    return [...this.#entries.values()].filter(({ host }) => this.#counts(host)).map((entry) => this.#statusOf(entry));
  }

  /** Undefined: it does not count. */
  status(host: string): AgentStatus | undefined {
    const entry = this.#entries.get(host);
    return entry !== undefined && this.#counts(host) ? this.#statusOf(entry) : undefined;
  }

  list(): readonly Agent[] {
    const now = this.#registry.state();
    return [...this.#entries.values()]
      .map(({ host, zone, version }) => {
        const { applied, rejected } = this.#acks.believed(host, now);
        const appliedRevision = applied?.generation === now.generation ? applied.revision : null;
        return {
          host,
          zone,
          version,
          connected: this.#graces.presence(host) === "leased",
          appliedRevision,
          lag: appliedRevision === null ? null : Math.max(0, now.revision - appliedRevision),
          rejected: [...rejected],
        };
      })
      .sort((a, b) => a.host.localeCompare(b.host));
  }

  /**
   * Drops what is known of a host that will not return.
   * @param remove removes its instances first, and says whether there was anything
   * @returns whether anything was known
   * @throws ProblemFault `conflict` while its agent is connected
   */
  async forget(host: string, remove: () => Promise<boolean>): Promise<boolean> {
    const isKnown = this.#entries.has(host);
    if (this.#graces.presence(host) === "leased")
      throw new ProblemFault("conflict", `the agent of ${host} is connected; stop its sidecar first`);
    const removed = await remove();
    this.forgotten(host);
    this.#emit({ kind: "forgotten", host });
    return removed || isKnown;
  }

  /** An operator said, here or at another replica, that a host will not return. Unless it came back meanwhile. */
  forgotten(host: string): void {
    if (this.#entries.has(host) && this.#graces.presence(host) !== "leased") this.#graces.drop(host);
  }

  /** Another replica began to hold, or ceased to. */
  reconsider(): void {
    this.#graces.reconsider();
  }

  /** Why nothing expires now, in words, or undefined. */
  degraded(): string | undefined {
    return this.#graces.degraded();
  }

  stop(): void {
    for (const unsubscribe of this.#unsubscribes) unsubscribe();
    this.#graces.stop();
  }

  #take({ instances }: Delta): void {
    const before = this.#owners.hosts;
    this.#meetOwners(instances.put);
    if (!instances.delete.some(({ reason }) => reason === "deregistered")) return;
    // somebody deregistered the last that a held host had: it was given up, whichever replica was told
    for (const host of this.#graces.held()) if (before.has(host) && !this.#owns(host)) this.#graces.drop(host);
  }

  /** Hosts that own instances count from the moment that an instance names them, lease or not. */
  #meetOwners(instances: readonly { readonly agent: string | null }[]): void {
    for (const { agent } of instances) {
      if (agent === null || this.#entries.has(agent)) continue;
      this.#meet(agent);
      this.#graces.await(agent);
      this.#emit({ kind: "joined", host: agent });
    }
  }

  #meet(host: string): Entry {
    const entry = this.#entries.get(host) ?? { host, zone: "", version: "", replica: undefined };
    this.#entries.set(host, entry);
    return entry;
  }

  #follow(leases: LeaseView): void {
    const restarted: string[] = [];
    for (const lease of leases.values()) {
      const { host, boot, zone, version, replica } = lease;
      // of thousands of leases one changes
      if (this.#followed.get(host) === lease) continue;
      Object.assign(this.#meet(host), { zone, version, replica });
      if (this.#acks.begin(host, boot, this.#registry.state())) restarted.push(host);
    }
    this.#followed = leases;
    this.#graces.follow(leases);
    for (const host of restarted) this.#emit({ kind: "joined", host });
  }

  /** A replica that only lost the store still has its agents, while its session, and their leases with it, are gone. */
  async #refuseLive(host: string): Promise<void> {
    const replica = this.#entries.get(host)?.replica;
    if (replica === undefined || replica === this.#live.replica) return;
    if ((await this.#elsewhere.liveBoot(replica, host)) === undefined) return;
    throw new Fault({
      code: "agent_live",
      message: `the agent of ${host} is live at the replica ${replica}, which lost the store`,
    });
  }

  /** One whose grace is over counts while it owns instances, which cannot expire; else there is nothing to wait for. */
  #counts(host: string): boolean {
    return this.#graces.presence(host) !== "held" || this.#owns(host);
  }

  #owns(host: string): boolean {
    const { instances } = this.#registry.state();
    if (this.#owners.of !== instances) this.#owners = ownersOf(instances);
    return this.#owners.hosts.has(host);
  }

  #statusOf({ host, replica }: Entry): AgentStatus {
    const tells = replica === undefined || replica === this.#live.replica || this.#elsewhere.answers(replica);
    const connected = this.#graces.presence(host) === "leased" && tells;
    return { host, connected, ...this.#acks.believed(host, this.#registry.state()) };
  }

  #emit(event: AgentEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}

function ownersOf(instances: RegistryState["instances"]): {
  readonly of: RegistryState["instances"];
  readonly hosts: ReadonlySet<string>;
} {
  return { of: instances, hosts: new Set([...instances.values()].flatMap(({ agent }) => agent ?? [])) };
}
