// The agents of the realm: who is here, who is in grace, what each has applied, and when the instances of one that is gone
// expire. Whether an agent is here is what the leases in the live store say, so every replica sees the same.
import type { Cancel, Clock } from "../core/lib/clock.ts";
import { ProblemFault } from "../core/lib/http.ts";
import type { Logger } from "../core/lib/logger.ts";
import type { Ack, Agent, Rejection } from "../core/model/agent.ts";
import type { Position } from "../core/model/position.ts";
import type { LeaseView, LiveStore } from "../core/registry/live-store.ts";
import type { Registry } from "./registry.ts";

/** How long an agent's instances outlive its lease. */
const GRACE_MS = 30_000;
/** More agents than this vanishing together is our blindness rather than their death. */
const VANISH = { atLeast: 2, share: 0.15 };

/** Where an agent stands with us. */
type Presence =
  | { readonly kind: "leased" }
  /** `lost`: it was here and went, as opposed to not seen since this Atlas began. */
  | { readonly kind: "grace"; readonly cancel: Cancel; readonly lost: boolean }
  /** Its grace is over, but too many vanished with it: nothing expires until they return or are forgotten. */
  | { readonly kind: "held" }
  /** Its instances are being removed. */
  | { readonly kind: "expiring" };

type Entry = {
  readonly host: string;
  /** Empty while only its instances are known. */
  boot: string;
  zone: string;
  version: string;
  presence: Presence;
  applied: Position | undefined;
  rejected: readonly Rejection[];
};

/** What waits want to know about. */
export type AgentEvent = { readonly kind: "joined" | "acked" | "left"; readonly host: string };

/** What an agent has done, as waits and `GET /v1/changes` count it. */
export type AgentStatus = {
  readonly host: string;
  readonly connected: boolean;
  readonly applied: Position | undefined;
  readonly rejected: readonly Rejection[];
};

export type AgentsOptions = {
  readonly live: LiveStore;
  readonly registry: Registry;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Removes the instances of a host whose grace is over; called again later when it throws. */
  readonly expire: (host: string) => Promise<void>;
};

export class Agents {
  readonly #live: LiveStore;
  readonly #registry: Registry;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #expireInstances: (host: string) => Promise<void>;
  readonly #entries = new Map<string, Entry>();
  readonly #listeners = new Set<(event: AgentEvent) => void>();
  readonly #unsubscribes: (() => void)[] = [];
  #wasDamped = false;

  /** Every agent that owns instances gets a fresh grace: it could not have been watching while we were not there. */
  constructor({ live, registry, clock, logger, expire }: AgentsOptions) {
    this.#live = live;
    this.#registry = registry;
    this.#clock = clock;
    this.#logger = logger;
    this.#expireInstances = expire;
    this.#meetOwners([...registry.state().instances.values()]);
    this.#follow(live.leases());
    this.#unsubscribes.push(
      live.onLeases((leases) => this.#follow(leases)),
      registry.on((event) => {
        if (event.kind === "delta") this.#meetOwners(event.delta.instances.put);
        else if (event.kind === "reset") this.#meetOwners([...registry.state().instances.values()]);
      }),
    );
  }

  /** How many agents count: a lease that lives, grace included. */
  get size(): number {
    return this.#entries.size;
  }

  on(listener: (event: AgentEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** @throws ProblemFault `not_found` when nobody knows that agent */
  acknowledge(host: string, ack: Ack): void {
    const entry = this.#entries.get(host);
    if (entry === undefined) {
      throw new ProblemFault(
        "not_found",
        `no agent of ${host} holds a lease; it opens a watch with agent= and boot= first`,
      );
    }
    const { generation, revision } = this.#registry.state();
    // nobody can run what was never written here: a store that was set back must not find its new changes applied already
    const ahead = ack.generation === generation && ack.revision > revision;
    entry.applied = ahead ? undefined : { generation: ack.generation, revision: ack.revision };
    entry.rejected = ahead ? [] : ack.rejected;
    // an ack without a stream is a sign of life all the same
    if (entry.presence.kind === "grace") this.#startGrace(entry, entry.presence.lost);
    this.#emit({ kind: "acked", host });
  }

  /** Every agent that counts, by host. */
  statuses(): readonly AgentStatus[] {
    return [...this.#entries.values()].map((entry) => this.#statusOf(entry));
  }

  status(host: string): AgentStatus | undefined {
    const entry = this.#entries.get(host);
    return entry && this.#statusOf(entry);
  }

  list(): readonly Agent[] {
    const { generation, revision } = this.#registry.state();
    return [...this.#entries.values()]
      .map(({ host, zone, version, presence, applied, rejected }) => {
        const appliedRevision = applied?.generation === generation ? applied.revision : null;
        return {
          host,
          zone,
          version,
          connected: presence.kind === "leased",
          appliedRevision,
          lag: appliedRevision === null ? null : Math.max(0, revision - appliedRevision),
          rejected: [...rejected],
        };
      })
      .sort((a, b) => a.host.localeCompare(b.host));
  }

  /**
   * Drops what is known of a host that will not return.
   * @param remove removes its instances first
   * @returns whether anything was known
   * @throws ProblemFault `conflict` while its agent is connected
   */
  async forget(host: string, remove: () => Promise<void>): Promise<boolean> {
    const entry = this.#entries.get(host);
    if (entry === undefined) return false;
    if (entry.presence.kind === "leased")
      throw new ProblemFault("conflict", `the agent of ${host} is connected; stop its sidecar first`);
    await remove();
    // unless it came back meanwhile
    if (this.#entries.get(host) === entry && !this.#live.leases().has(host)) this.#drop(entry);
    return true;
  }

  /** Why nothing expires now, in words, or undefined. */
  degraded(): string | undefined {
    const gone = this.#vanished();
    // right after a start nobody has vanished, they have not come yet
    const vanishedHere = gone.some(({ presence }) => presence.kind !== "grace" || presence.lost);
    if (!this.#damped() || !vanishedHere) return undefined;
    const vanished = gone.map(({ host }) => host);
    const shown = vanished.length > 5 ? [...vanished.slice(0, 5), "…"] : vanished;
    return (
      `expiry stopped: ${vanished.length} of ${this.#entries.size} agents vanished together (${shown.join(", ")}); ` +
      "it goes on when they return, or after DELETE /v1/agents/HOST for those that will not"
    );
  }

  stop(): void {
    for (const unsubscribe of this.#unsubscribes) unsubscribe();
    for (const { presence } of this.#entries.values()) if (presence.kind === "grace") presence.cancel();
  }

  #statusOf({ host, presence, applied, rejected }: Entry): AgentStatus {
    return { host, connected: presence.kind === "leased", applied, rejected };
  }

  /** Hosts that own instances count from the moment that an instance names them, lease or not. */
  #meetOwners(instances: readonly { readonly agent: string | null }[]): void {
    for (const { agent } of instances) {
      if (agent === null || this.#entries.has(agent)) continue;
      this.#startGrace(this.#meet(agent), false);
      this.#emit({ kind: "joined", host: agent });
    }
  }

  #meet(host: string): Entry {
    const known = this.#entries.get(host);
    if (known !== undefined) return known;
    const entry: Entry = {
      host,
      boot: "",
      zone: "",
      version: "",
      presence: { kind: "leased" },
      applied: undefined,
      rejected: [],
    };
    this.#entries.set(host, entry);
    return entry;
  }

  #follow(leases: LeaseView): void {
    for (const { host, boot, zone, version } of leases.values()) {
      const entry = this.#meet(host);
      if (entry.boot !== boot) this.#beginAnew(entry, boot);
      entry.zone = zone;
      entry.version = version;
      if (entry.presence.kind === "grace") entry.presence.cancel();
      entry.presence = { kind: "leased" };
    }
    for (const entry of this.#entries.values()) {
      if (entry.presence.kind === "leased" && !leases.has(entry.host)) this.#startGrace(entry, true);
    }
    this.#settleHeld();
  }

  /** What an earlier boot applied says nothing about this one: the whole host may have restarted. */
  #beginAnew(entry: Entry, boot: string): void {
    entry.boot = boot;
    entry.applied = undefined;
    entry.rejected = [];
    this.#emit({ kind: "joined", host: entry.host });
  }

  #startGrace(entry: Entry, lost: boolean): void {
    if (entry.presence.kind === "grace") entry.presence.cancel();
    const cancel = this.#clock.after(GRACE_MS, () => this.#graceOver(entry, lost));
    entry.presence = { kind: "grace", cancel, lost };
  }

  #graceOver(entry: Entry, lost: boolean): void {
    if (this.#damped()) {
      entry.presence = { kind: "held" };
      this.#settleHeld();
      return;
    }
    // what we could not see while the store was away, we cannot hold against an agent
    if (this.#live.degraded() !== undefined) {
      this.#startGrace(entry, lost);
      return;
    }
    entry.presence = { kind: "expiring" };
    void this.#expire(entry).catch((error: unknown) => {
      this.#logger.warn(
        { err: error, host: entry.host },
        "instances could not expire; trying again after another grace",
      );
      if (entry.presence.kind === "expiring") this.#startGrace(entry, lost);
    });
  }

  async #expire(entry: Entry): Promise<void> {
    this.#logger.warn({ host: entry.host }, "the agent did not return within its grace; its instances expire");
    await this.#expireInstances(entry.host);
    // it may have come back meanwhile
    if (entry.presence.kind === "expiring") this.#drop(entry);
  }

  #drop(entry: Entry): void {
    if (entry.presence.kind === "grace") entry.presence.cancel();
    this.#entries.delete(entry.host);
    this.#emit({ kind: "left", host: entry.host });
    this.#settleHeld();
  }

  #vanished(): readonly Entry[] {
    return [...this.#entries.values()].filter(({ presence }) => presence.kind !== "leased");
  }

  #damped(): boolean {
    return this.#vanished().length > Math.max(VANISH.atLeast, VANISH.share * this.#entries.size);
  }

  /** Those held get a fresh grace once enough of the others are back. */
  #settleHeld(): void {
    const damped = this.#damped();
    const held = [...this.#entries.values()].filter(({ presence }) => presence.kind === "held");
    if (damped && held.length > 0 && !this.#wasDamped) this.#logger.error(this.degraded());
    if (!damped) {
      if (this.#wasDamped) this.#logger.info("expiry goes on");
      for (const entry of held) this.#startGrace(entry, true);
    }
    this.#wasDamped = damped && held.length > 0;
  }

  #emit(event: AgentEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}
