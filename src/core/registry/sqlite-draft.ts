// What a transaction of the embedded store makes of the state in memory, before it is known whether it commits.
import type { Instance, Registration } from "../model/instance.ts";
import type { Removal } from "../model/snapshot.ts";
import { CopyOnWrite } from "./copy-on-write.ts";
import type { InstanceRecord, LiveChange, LiveState } from "./live-store.ts";

/** All that the embedded store holds of live state: what everyone sees, and its private rest. */
export type Held = {
  readonly state: LiveState;
  /** When each removal was, in ms since the epoch. */
  readonly removedAt: ReadonlyMap<string, number>;
  /** Ids of instances that are away but disabled: all that is kept of them. */
  readonly away: ReadonlyMap<string, true>;
};

export class Draft {
  readonly base: LiveState;
  /** Everything of one transaction is one revision. */
  readonly revision: number;
  readonly definitions: CopyOnWrite<number>;
  readonly settings: CopyOnWrite<number>;
  readonly instances: CopyOnWrite<Instance>;
  readonly removed: CopyOnWrite<Removal>;
  readonly removedAt: CopyOnWrite<number>;
  readonly away: CopyOnWrite<true>;
  /** Another one than the base's makes the transaction a reset. */
  generation: number;
  readonly touchedServices = new Set<string>();
  readonly touchedSettings = new Set<string>();
  readonly touchedInstances = new Set<string>();
  /** Something that counts for the revision was written. */
  moved = false;

  constructor({ state, removedAt, away }: Held) {
    this.base = state;
    this.generation = state.generation;
    this.revision = state.revision + 1;
    this.definitions = new CopyOnWrite(state.definitions);
    this.settings = new CopyOnWrite(state.settings);
    this.instances = new CopyOnWrite(state.instances);
    this.removed = new CopyOnWrite(state.removed);
    this.removedAt = new CopyOnWrite(removedAt);
    this.away = new CopyOnWrite(away);
  }

  /** What a decision sees of an instance. */
  record(id: string): InstanceRecord | undefined {
    const instance = this.instances.now.get(id);
    if (instance !== undefined) return { registration: registrationOf(instance), enabled: instance.enabled };
    return this.away.now.has(id) ? { registration: undefined, enabled: false } : undefined;
  }

  held(): Held {
    const { base, moved } = this;
    const state: LiveState = {
      generation: this.generation,
      revision: moved ? this.revision : base.revision,
      definitions: this.definitions.now,
      settings: this.settings.now,
      instances: this.instances.now,
      removed: this.removed.now,
    };
    return { state, removedAt: this.removedAt.now, away: this.away.now };
  }

  /** What happened, net: an instance that was put and removed within one transaction is a removal. */
  changes(state: LiveState): readonly LiveChange[] {
    if (this.generation !== this.base.generation) return [{ kind: "reset", state }];
    const settings = [...this.touchedSettings].map((service) => ({ kind: "settings" as const, state, service }));
    return this.moved ? [this.#change(state), ...settings] : settings;
  }

  #change(state: LiveState): LiveChange {
    const { base } = this;
    const services = [...this.touchedServices];
    const ids = [...this.touchedInstances];
    return {
      kind: "change",
      state,
      since: base.revision,
      definitions: {
        put: new Map(services.flatMap((service) => entry(service, state.definitions.get(service)))),
        delete: services.filter((service) => !state.definitions.has(service) && base.definitions.has(service)),
      },
      instances: {
        put: ids.flatMap((id) => state.instances.get(id) ?? []),
        delete: ids
          .filter((id) => !state.instances.has(id) && base.instances.has(id))
          .map((id) => {
            const reason = state.removed.get(id)?.reason;
            return reason === undefined ? { id } : { id, reason };
          }),
      },
    };
  }
}

function entry(service: string, version: number | undefined): [string, number][] {
  return version === undefined ? [] : [[service, version]];
}

export function registrationOf(instance: Instance): Registration {
  const { enabled: _, ...registration } = instance;
  return registration;
}
