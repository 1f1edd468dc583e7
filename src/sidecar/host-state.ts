// What one host knows and wants, in one place: the registry as it believes it, its own instances, and what its HAProxy should
// therefore route.
import type { Instance } from "../core/model/instance.ts";
import type { Position } from "../core/model/position.ts";
import { type Definition, defaultDefinition } from "../core/model/service.ts";
import { type Delta, emptySnapshot, type Snapshot } from "../core/model/snapshot.ts";
import type { Desired } from "../core/haproxy/proxy.ts";
import { type Change, emptyView, preserve, routed, type Verdict, type View } from "./hold.ts";
import { type LocalInstance, overlayLocal } from "./local-instance.ts";
import type { Kept } from "./state-file.ts";

/** For so long, in ms, a realm counts as large as it last was: a changed check interval costs HAProxy a reload. */
const SHRINK_MS = 600_000;

export class HostState {
  readonly host: string;
  /** Own instances by id, those included that left and that Atlas may still have. */
  readonly locals: Map<string, LocalInstance>;
  /**
   * Own instances that an operator had disabled when the registry last spoke of them. One that is started again is routed
   * before Atlas has answered, and must not take requests in between.
   */
  readonly disabled: Set<string>;
  #view: View;
  #heard: boolean;
  #agents: number;
  #agentsSeenAt: number | undefined;
  /** The instances of the registry's snapshot by id. */
  #index = new Map<string, Instance>();

  /** @param kept what the last sidecar knew; undefined: this is the first */
  constructor(realm: string, host: string, kept?: Kept) {
    this.host = host;
    this.locals = new Map(kept?.locals);
    this.disabled = new Set(kept?.disabled);
    this.#view = kept?.view ?? emptyView(emptySnapshot(realm));
    this.#heard = kept?.view !== undefined;
    this.#agents = kept?.agents ?? 1;
    this.#reindex();
  }

  get view(): View {
    return this.#view;
  }

  /** Changes what is believed of the same snapshot: a hold begins or ends. */
  set view(view: View) {
    this.#view = view;
  }

  /**
   * The registry said something new.
   * @param delta what changed, when it said so
   */
  take(next: Snapshot, delta: Delta | undefined, now: number): readonly Verdict[] {
    const { view, verdicts } = preserve(this.#view, this.#changeTo(next, delta), this.host, now);
    this.#view = view;
    this.#heard = true;
    for (const { id, agent, enabled } of delta?.instances.put ?? next.instances) {
      if (agent !== this.host || enabled) this.disabled.delete(id);
      else this.disabled.add(id);
    }
    return verdicts;
  }

  /** True when there is a registry's word to go by, from Atlas or from disk. */
  get heard(): boolean {
    return this.#heard;
  }

  /** How many agents the realm has: grows at once, shrinks after ten minutes. */
  get agents(): number {
    return this.#agents;
  }

  /** @returns whether the number changed */
  countAgents(agents: number, now: number): boolean {
    if (agents >= this.#agents) this.#agentsSeenAt = now;
    this.#agentsSeenAt ??= now;
    if (agents === this.#agents || (agents < this.#agents && now - this.#agentsSeenAt < SHRINK_MS)) return false;
    this.#agents = agents;
    return true;
  }

  get position(): Position {
    return this.#view.snapshot;
  }

  /** What the registry itself says of an instance. */
  seen(id: string): Instance | undefined {
    return this.#index.get(id);
  }

  /** True when this host routes that service. */
  knows(service: string): boolean {
    return (
      Object.hasOwn(this.#view.snapshot.services, service) ||
      Object.hasOwn(this.#view.remembered, service) ||
      [...this.locals.values()].some((local) => local.service === service)
    );
  }

  /** The definition that counts on this host. */
  definition(service: string): Definition {
    return (
      this.#view.snapshot.services[service] ??
      this.#view.remembered[service] ??
      [...this.locals.values()].find((local) => local.service === service)?.definition ??
      defaultDefinition
    );
  }

  /** What HAProxy should run. */
  desired(): Desired {
    const { services, instances } = overlayLocal(routed(this.#view), this.locals.values(), this.host, this.disabled);
    return { services, instances, agents: this.agents };
  }

  /** With a delta only what it names is looked at: of 10,000 instances it changes one. */
  #changeTo(next: Snapshot, delta: Delta | undefined): Change {
    const has = (id: string): boolean => this.#index.has(id);
    if (delta === undefined) {
      const before = this.#view.snapshot.instances;
      this.#reindex(next);
      return { next, has, gone: before.filter(({ id }) => !has(id)) };
    }
    const gone = delta.instances.delete.flatMap(({ id }) => this.#index.get(id) ?? []);
    for (const { id } of gone) this.#index.delete(id);
    for (const instance of delta.instances.put) this.#index.set(instance.id, instance);
    return { next, has, gone: gone.filter(({ id }) => !has(id)) };
  }

  #reindex(snapshot = this.#view.snapshot): void {
    this.#index = new Map(snapshot.instances.map((instance) => [instance.id, instance]));
  }
}
