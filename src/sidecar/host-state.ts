// What one host knows and wants, in one place: the registry as it believes it, its own instances, and what its HAProxy should
// therefore route.
import type { Instance } from "../core/model/instance.ts";
import type { Position } from "../core/model/position.ts";
import { type Definition, defaultDefinition } from "../core/model/service.ts";
import { emptySnapshot, type Snapshot } from "../core/model/snapshot.ts";
import type { Desired } from "../core/haproxy/proxy.ts";
import { emptyView, routed, type View } from "./hold.ts";
import { type LocalInstance, overlayLocal } from "./local-instance.ts";
import type { Kept } from "./state-file.ts";

/** For so long, in ms, a realm counts as large as it last was: a changed check interval costs HAProxy a reload. */
const SHRINK_MS = 600_000;

export class HostState {
  readonly host: string;
  /** Own instances by id, those included that left and that Atlas may still have. */
  readonly locals: Map<string, LocalInstance>;
  #view: View;
  #heard: boolean;
  #agents: number;
  #agentsSeenAt: number | undefined;
  #index: { readonly of: Snapshot; readonly instances: ReadonlyMap<string, Instance> } | undefined;

  /** @param kept what the last sidecar knew; undefined: this is the first */
  constructor(realm: string, host: string, kept?: Pick<Kept, "view" | "locals" | "agents">) {
    this.host = host;
    this.locals = new Map(kept?.locals);
    this.#view = kept?.view ?? emptyView(emptySnapshot(realm));
    this.#heard = kept?.view !== undefined;
    this.#agents = kept?.agents ?? 1;
  }

  get view(): View {
    return this.#view;
  }

  set view(view: View) {
    this.#view = view;
    this.#heard = true;
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
    const { snapshot } = this.#view;
    if (this.#index?.of !== snapshot) {
      this.#index = { of: snapshot, instances: new Map(snapshot.instances.map((instance) => [instance.id, instance])) };
    }
    return this.#index.instances.get(id);
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
    const { services, instances } = overlayLocal(routed(this.#view), this.locals.values(), this.host);
    return { services, instances, agents: this.agents };
  }
}
