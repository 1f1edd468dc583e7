// Who is here, who is in grace, and when those who are gone expire. Every replica runs its own graces over the same leases and
// comes to the same end; that two expire a host at once is harmless, since the second finds nothing left.
import type { Cancel, Clock } from "../core/lib/clock.ts";
import type { Logger } from "../core/lib/logger.ts";

/** How long an agent's instances outlive its lease. */
const GRACE_MS = 30_000;
/** A timer that is so late, in ms, says that this process was stopped: what happened meanwhile, it has not seen yet. */
const LATE_MS = 2_000;
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

export type GracesOptions = {
  readonly clock: Clock;
  readonly logger: Logger;
  /** The store shows nothing new now: what we cannot see, we cannot hold against an agent. */
  readonly blind: () => boolean;
  /** A replica that stopped expiry by its own count: one that came later may never have met those who vanished. */
  readonly holding: () => string | undefined;
  /** Removes the instances of a host; called again later when it throws. Afterwards the host is no longer known here. */
  readonly expire: (host: string) => Promise<void>;
  /** The grace of a host is over, and nothing expires. */
  readonly onHeld: (host: string) => void;
  /** A host is known no more. */
  readonly onGone: (host: string) => void;
  /** `holds` changed. */
  readonly onHolds: () => void;
};

export class Graces {
  readonly #options: GracesOptions;
  readonly #hosts = new Map<string, Presence>();
  #heldCount = 0;
  #toldHolds = false;

  constructor(options: GracesOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#hosts.size;
  }

  /** Expiry stopped by our own count. */
  get holds(): boolean {
    return this.#heldCount > 0 && this.#damped();
  }

  presence(host: string): Presence["kind"] | undefined {
    return this.#hosts.get(host)?.kind;
  }

  /** The hosts that are held; usually none. */
  held(): readonly string[] {
    if (this.#heldCount === 0) return [];
    return [...this.#hosts].filter(([, { kind }]) => kind === "held").map(([host]) => host);
  }

  /** These have a lease, and nobody else. */
  follow(leased: ReadonlyMap<string, unknown>): void {
    for (const host of leased.keys()) {
      if (this.presence(host) !== "leased") this.#become(host, { kind: "leased" });
    }
    for (const [host, { kind }] of this.#hosts) {
      if (kind === "leased" && !leased.has(host)) this.#startGrace(host, true);
    }
    this.reconsider();
  }

  /** A host is known by its instances alone. */
  await(host: string): void {
    this.#startGrace(host, false);
  }

  /** A sign of life of a host that has no lease. */
  alive(host: string): void {
    const presence = this.#hosts.get(host);
    if (presence?.kind === "grace") this.#startGrace(host, presence.lost);
  }

  /** The store sees again: who is not here now may have been here until a moment ago. */
  beginAnew(): void {
    for (const [host, presence] of this.#hosts) if (presence.kind === "grace") this.#startGrace(host, presence.lost);
  }

  drop(host: string): void {
    // takes its timer and its place among the held along
    this.#become(host, { kind: "expiring" });
    this.#hosts.delete(host);
    this.#options.onGone(host);
    this.reconsider();
  }

  /** Those held get a fresh grace once enough of the others are back. */
  reconsider(): void {
    if (this.#heldCount > 0 && !this.#stopped()) {
      this.#options.logger.info("expiry goes on");
      for (const host of this.held()) this.#startGrace(host, true);
    }
    const { holds } = this;
    if (holds === this.#toldHolds) return;
    this.#toldHolds = holds;
    if (holds) this.#options.logger.error(this.degraded());
    this.#options.onHolds();
  }

  /** Why nothing expires now, in words, or undefined. */
  degraded(): string | undefined {
    const gone = this.#vanished();
    // right after a start nobody has vanished, they have not come yet
    const vanishedHere = gone.some(([, presence]) => presence.kind !== "grace" || presence.lost);
    if (this.#damped() && vanishedHere) {
      const vanished = gone.map(([host]) => host);
      const shown = vanished.length > 5 ? [...vanished.slice(0, 5), "…"] : vanished;
      return (
        `expiry stopped: ${vanished.length} of ${this.#hosts.size} agents vanished together (${shown.join(", ")}); ` +
        "it goes on when they return, or after DELETE /v1/agents/HOST for those that will not"
      );
    }
    const replica = this.#options.holding();
    if (this.#heldCount === 0 || replica === undefined) return undefined;
    return `expiry stopped: the replica ${replica} has seen too many agents vanish together`;
  }

  stop(): void {
    for (const presence of this.#hosts.values()) if (presence.kind === "grace") presence.cancel();
  }

  #become(host: string, presence: Presence): void {
    const before = this.#hosts.get(host);
    if (before?.kind === "grace") before.cancel();
    this.#heldCount += Number(presence.kind === "held") - Number(before?.kind === "held");
    this.#hosts.set(host, presence);
  }

  #startGrace(host: string, lost: boolean): void {
    const { clock, blind } = this.#options;
    const due = clock.now() + GRACE_MS;
    const cancel = clock.after(GRACE_MS, () => {
      if (blind() || clock.now() - due > LATE_MS) this.#startGrace(host, lost);
      else this.#over(host, lost);
    });
    this.#become(host, { kind: "grace", cancel, lost });
  }

  #over(host: string, lost: boolean): void {
    if (this.#stopped()) {
      this.#become(host, { kind: "held" });
      this.#options.onHeld(host);
      this.reconsider();
      return;
    }
    const expiring: Presence = { kind: "expiring" };
    this.#become(host, expiring);
    void this.#expire(host, expiring).catch((error: unknown) => {
      this.#options.logger.warn({ err: error, host }, "instances could not expire; trying again after another grace");
      if (this.#hosts.get(host) === expiring) this.#startGrace(host, lost);
    });
  }

  async #expire(host: string, expiring: Presence): Promise<void> {
    await this.#options.expire(host);
    // it may have come back meanwhile
    if (this.#hosts.get(host) === expiring) this.drop(host);
  }

  #vanished(): readonly (readonly [string, Presence])[] {
    return [...this.#hosts].filter(([, { kind }]) => kind !== "leased");
  }

  #damped(): boolean {
    return this.#vanished().length > Math.max(VANISH.atLeast, VANISH.share * this.#hosts.size);
  }

  #stopped(): boolean {
    return this.#damped() || this.#options.holding() !== undefined;
  }
}
