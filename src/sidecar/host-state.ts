// What one host knows and wants, in one place: the registry as it believes it, its own instances, and what its HAProxy should
// therefore route.
import type { Instance } from "../core/model/instance.ts";
import type { Position } from "../core/model/position.ts";
import { type Definition, defaultDefinition } from "../core/model/service.ts";
import { emptySnapshot, type Snapshot } from "../core/model/snapshot.ts";
import type { Desired } from "../core/haproxy/proxy.ts";
import { emptyView, routed, type View } from "./hold.ts";
import { type LocalInstance, overlayLocal } from "./local-instance.ts";

export class HostState {
  readonly host: string;
  /** Own instances by id, those included that left and that Atlas may still have. */
  readonly locals: Map<string, LocalInstance>;
  /** How many agents the realm has, by Atlas's last heartbeat. */
  agents = 1;
  #view: View;
  #heard: boolean;
  #index: { readonly of: Snapshot; readonly instances: ReadonlyMap<string, Instance> } | undefined;

  /** @param view from disk; undefined: Atlas was never heard */
  constructor(realm: string, host: string, view: View | undefined, locals: ReadonlyMap<string, LocalInstance>) {
    this.host = host;
    this.locals = new Map(locals);
    this.#view = view ?? emptyView(emptySnapshot(realm));
    this.#heard = view !== undefined;
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
