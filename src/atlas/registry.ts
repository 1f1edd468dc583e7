// The registry as the rest of Atlas sees it: the live store's state with its definitions resolved, as snapshots and deltas.
import type { Clock } from "../core/lib/clock.ts";
import type { Logger } from "../core/lib/logger.ts";
import type { Instance } from "../core/model/instance.ts";
import { parseInstanceId } from "../core/model/names.ts";
import type { Position } from "../core/model/position.ts";
import { type Definition, defaultDefinition } from "../core/model/service.ts";
import type { Settings } from "../core/model/settings.ts";
import type { Delta, Snapshot } from "../core/model/snapshot.ts";
import type { LiveChange, LiveState, LiveStore } from "../core/registry/live-store.ts";
import type { DefinitionVersion, MetaStore } from "../core/registry/meta-store.ts";
import { Definitions, sideBySide } from "./definitions.ts";

/** Everything at one position. Immutable. */
export type RegistryState = Position & {
  readonly services: ReadonlyMap<string, Definition>;
  readonly instances: LiveState["instances"];
  readonly removed: LiveState["removed"];
};

export type RegistryEvent =
  | { readonly kind: "delta"; readonly delta: Delta }
  | { readonly kind: "reset" }
  | { readonly kind: "settings"; readonly service: string };

export type RegistryOptions = {
  readonly realm: string;
  readonly live: LiveStore;
  readonly meta: MetaStore;
  readonly clock: Clock;
  readonly logger: Logger;
};

export class Registry {
  readonly realm: string;
  readonly #live: LiveStore;
  readonly #meta: MetaStore;
  readonly #logger: Logger;
  readonly #listeners = new Set<(event: RegistryEvent) => void>();
  readonly #closing = new AbortController();
  readonly #definitions: Definitions;
  /** The settings that count, as far as they were read: services start with them while metadata is away. */
  readonly #settings = new Map<string, Settings>();
  #backlog: LiveChange[] = [];
  /** Ends the reading for changes that a reset made pointless. */
  #superseded = new AbortController();
  #state: RegistryState | undefined;
  #snapshot: Snapshot | undefined;

  constructor({ realm, live, meta, clock, logger }: RegistryOptions) {
    this.realm = realm;
    this.#live = live;
    this.#meta = meta;
    this.#logger = logger;
    this.#definitions = new Definitions(meta, clock, logger);
  }

  /** Opens both halves and reads everything. @throws Fault of the store; then both are closed again */
  async open(): Promise<void> {
    try {
      await this.#live.open();
      await this.#meta.open();
      this.#live.onChange((change) => this.#receive(change));
      const state = this.#live.state();
      await this.#definitions.readAll(state.definitions);
      this.#state = this.#resolve(state, new Map());
      this.#readAhead(state.settings.keys());
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error("Atlas is stopping"));
    await this.#meta.close();
    await this.#live.close();
  }

  state(): RegistryState {
    if (this.#state === undefined) throw new Error("the registry is not open");
    return this.#state;
  }

  /** The state as watchers are sent it; made once per revision. */
  snapshot(): Snapshot {
    const { generation, revision, services, instances, removed } = this.state();
    if (this.#snapshot?.revision === revision && this.#snapshot.generation === generation) return this.#snapshot;
    this.#snapshot = {
      generation,
      revision,
      realm: this.realm,
      services: Object.fromEntries(services),
      instances: [...instances.values()],
      removed: [...removed.values()],
    };
    return this.#snapshot;
  }

  instancesOf(service: string): readonly Instance[] {
    return [...this.state().instances.values()].filter((instance) => instance.service === service);
  }

  /** Called in order, once `state()` shows it. Returns the way to stop. */
  on(listener: (event: RegistryEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The definition version that counts, or undefined when the service is not defined. */
  async definition(service: string): Promise<(DefinitionVersion & { readonly version: number }) | undefined> {
    const version = this.#live.state().definitions.get(service);
    if (version === undefined) return undefined;
    const known = this.#definitions.known(service, version) ?? (await this.#meta.definition(service, version));
    return { ...known, version };
  }

  /** Stores a version and makes it count, if `expected` still does. @throws Fault `conflict` when it does not */
  async define(service: string, next: DefinitionVersion, expected: number | undefined) {
    const version = await this.#meta.addDefinition(service, next);
    // known before it is committed, so that the commit is published without a read
    this.#definitions.add(service, version, next);
    try {
      return await this.#live.setDefinition(service, version, expected);
    } catch (error) {
      this.#definitions.drop(service, version);
      throw error;
    }
  }

  /** The settings that count. Version 0 with no values: nobody has set anything. */
  async settings(service: string): Promise<Settings> {
    const version = this.#live.state().settings.get(service);
    if (version === undefined) return { service, version: 0, values: {} };
    const known = this.#settings.get(service);
    if (known?.version === version) return known;
    const read = await this.#meta.settings(service, version);
    // while it was read a newer one may have come
    if (this.#live.state().settings.get(service) === version) this.#settings.set(service, read);
    return read;
  }

  /** What does not work now, in words; empty when all is well. */
  degraded(): readonly string[] {
    const { trouble } = this.#definitions;
    const lost = this.#definitions.lost();
    const reasons = [trouble, this.#live.degraded(), this.#meta.degraded(), ...this.#live.problems(), ...lost];
    return [...new Set(reasons.filter((reason) => reason !== undefined))];
  }

  /** False while a change cannot be published because its definition cannot be read: never defaults instead. */
  ready(): boolean {
    return this.#state !== undefined && this.#definitions.trouble === undefined;
  }

  #receive(change: LiveChange): void {
    if (change.kind === "reset") {
      // in another store the same number may be another definition
      this.#definitions.clear();
      this.#settings.clear();
      this.#readAhead(change.state.settings.keys());
    } else if (change.kind === "settings") this.#readAhead([change.service]);
    // the usual case is in order and known: published within the same turn
    if (this.#backlog.length === 0 && this.#missing(change).size === 0) {
      this.#publish(change);
      return;
    }
    const isDraining = this.#backlog.length > 0;
    if (change.kind === "reset") {
      // nothing follows from what was, and its definitions may be gone for good
      this.#backlog = [change];
      this.#superseded.abort();
      this.#superseded = new AbortController();
    } else this.#backlog.push(change);
    if (isDraining) return;
    void this.#drain().catch((error: unknown) => {
      if (!this.#closing.signal.aborted) this.#logger.error({ err: error }, "publishing changes stopped");
    });
  }

  /** Settings, so that they are there when metadata is not. */
  #readAhead(services: Iterable<string>): void {
    void sideBySide(services, async (service) => {
      await this.settings(service).catch((error: unknown) => {
        if (!this.#closing.signal.aborted) this.#logger.warn({ err: error, service }, "settings cannot be read ahead");
      });
    });
  }

  async #drain(): Promise<void> {
    for (let change = this.#backlog[0]; change !== undefined; change = this.#backlog[0]) {
      const superseded = this.#superseded.signal;
      try {
        const signal = AbortSignal.any([superseded, this.#closing.signal]);
        await this.#definitions.readUntilThere(this.#missing(change), { signal, whole: change.kind === "reset" });
      } catch (error) {
        if (superseded.aborted && !this.#closing.signal.aborted) continue;
        throw error;
      }
      if (superseded.aborted) continue;
      this.#publish(change);
      this.#backlog.shift();
    }
  }

  #missing(change: LiveChange): ReadonlyMap<string, number> {
    if (change.kind === "settings") return new Map();
    const wanted = change.kind === "reset" ? change.state.definitions : change.definitions.put;
    return new Map([...wanted].filter(([service, version]) => this.#definitions.known(service, version) === undefined));
  }

  #publish(change: LiveChange): void {
    if (change.kind === "settings") {
      this.#emit({ kind: "settings", service: change.service });
      return;
    }
    const before = this.#state?.services ?? new Map<string, Definition>();
    if (change.kind === "reset") {
      this.#state = this.#resolve(change.state, before);
      this.#emit({ kind: "reset" });
      return;
    }
    const touched = touchedServices(change);
    this.#state =
      touched.size === 0 ? { ...this.#position(change.state), services: before } : this.#resolve(change.state, before);
    const { generation, revision, services } = this.#state;
    const put = [...touched].flatMap((service) => {
      const definition = services.get(service);
      const isNews = change.definitions.put.has(service) || definition !== before.get(service);
      return definition === undefined || !isNews ? [] : [[service, definition] as const];
    });
    this.#emit({
      kind: "delta",
      delta: {
        generation,
        revision,
        since: change.since,
        services: {
          put: Object.fromEntries(put),
          delete: [...new Set([...before.keys(), ...change.definitions.delete])].filter(
            (service) => touched.has(service) && !services.has(service),
          ),
        },
        instances: change.instances,
      },
    });
  }

  #emit(event: RegistryEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  /** The live state with every definition number replaced by its definition. */
  #resolve(live: LiveState, before: ReadonlyMap<string, Definition>): RegistryState {
    const services = new Map<string, Definition>();
    for (const [service, version] of live.definitions) {
      const known = this.#definitions.known(service, version);
      if (known === undefined) throw new Error(`version ${version} of ${service} was not read`);
      services.set(service, known.definition);
    }
    // an instance put by hand may be of a service that nobody defined
    for (const { service } of live.instances.values()) {
      if (!services.has(service)) services.set(service, defaultDefinition);
    }
    this.#definitions.forget(live.definitions, before);
    return { ...this.#position(live), services };
  }

  #position({ generation, revision, instances, removed }: LiveState): Omit<RegistryState, "services"> {
    return { generation, revision, instances, removed };
  }
}

/** Services whose definition a change may change: named by it, or without one and with an instance that came or went. */
function touchedServices({
  definitions,
  instances,
  state,
}: Extract<LiveChange, { kind: "change" }>): ReadonlySet<string> {
  const undefinedOnes = [
    ...instances.put.map(({ service }) => service),
    ...instances.delete.map(({ id }) => parseInstanceId(id).service),
  ].filter((service) => !state.definitions.has(service));
  return new Set([...definitions.put.keys(), ...definitions.delete, ...undefinedOnes]);
}
