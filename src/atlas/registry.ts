// The registry as the rest of Atlas sees it: the live store's state with its definitions resolved, as snapshots and deltas.
import { fullJitter } from "../core/lib/backoff.ts";
import type { Clock } from "../core/lib/clock.ts";
import { describeError, errorCode } from "../core/lib/errors.ts";
import type { Logger } from "../core/lib/logger.ts";
import type { Instance } from "../core/model/instance.ts";
import { parseInstanceId } from "../core/model/names.ts";
import type { Position } from "../core/model/position.ts";
import { type Definition, defaultDefinition } from "../core/model/service.ts";
import type { Settings } from "../core/model/settings.ts";
import type { Delta, Snapshot } from "../core/model/snapshot.ts";
import type { LiveChange, LiveState, LiveStore } from "../core/registry/live-store.ts";
import type { DefinitionVersion, MetaStore } from "../core/registry/meta-store.ts";

/** Metadata is read one by one when Atlas starts: so many at the same time. */
const READS_AT_ONCE = 16;

/** What a version is that no reading will ever find: somebody set its number by hand, or harmed the table. */
export const LOST = new Set(["meta_missing", "meta_unreadable"]);

/** A version that counts and is lost, and what the service was before; undefined: nobody knows. */
type Lost = {
  readonly service: string;
  readonly version: number;
  readonly error: unknown;
  readonly last: DefinitionVersion | undefined;
};

/** What counts in place of a lost version: the one before, as with all other garbage; the default when there was none. */
type StandIn = { readonly version: number; readonly definition: DefinitionVersion; readonly why: string };

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
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #listeners = new Set<(event: RegistryEvent) => void>();
  readonly #closing = new AbortController();
  /** `SERVICE/VERSION` → its definition, for versions that count or are about to. */
  readonly #definitions = new Map<string, DefinitionVersion>();
  /** By service. Only until its number moves on. */
  readonly #standIns = new Map<string, StandIn>();
  /** The settings that count, as far as they were read: services start with them while metadata is away. */
  readonly #settings = new Map<string, Settings>();
  #backlog: LiveChange[] = [];
  /** Ends the reading for changes that a reset made pointless. */
  #superseded = new AbortController();
  #state: RegistryState | undefined;
  #snapshot: Snapshot | undefined;
  #trouble: string | undefined;

  constructor({ realm, live, meta, clock, logger }: RegistryOptions) {
    this.realm = realm;
    this.#live = live;
    this.#meta = meta;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** Opens both halves and reads everything. @throws Fault of the store; then both are closed again */
  async open(): Promise<void> {
    try {
      await this.#live.open();
      await this.#meta.open();
      this.#live.onChange((change) => this.#receive(change));
      const state = this.#live.state();
      await this.#fetch(state.definitions, this.#closing.signal, true);
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
    const known = this.#known(service, version) ?? (await this.#meta.definition(service, version));
    return { ...known, version };
  }

  /** Stores a version and makes it count, if `expected` still does. @throws Fault `conflict` when it does not */
  async define(service: string, next: DefinitionVersion, expected: number | undefined) {
    const version = await this.#meta.addDefinition(service, next);
    // known before it is committed, so that the commit is published without a read
    this.#definitions.set(`${service}/${version}`, next);
    try {
      return await this.#live.setDefinition(service, version, expected);
    } catch (error) {
      this.#definitions.delete(`${service}/${version}`);
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
    const lost = [...this.#standIns.values()].map(({ why }) => why);
    const reasons = [this.#trouble, this.#live.degraded(), this.#meta.degraded(), ...this.#live.problems(), ...lost];
    return [...new Set(reasons.filter((reason) => reason !== undefined))];
  }

  /** False while a change cannot be published because its definition cannot be read: never defaults instead. */
  ready(): boolean {
    return this.#state !== undefined && this.#trouble === undefined;
  }

  #receive(change: LiveChange): void {
    if (change.kind === "reset") {
      // in another store the same number may be another definition
      this.#definitions.clear();
      this.#standIns.clear();
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
    void this.#sideBySide(services, async (service) => {
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
        await this.#fetch(this.#missing(change), signal, change.kind === "reset");
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
    return new Map([...wanted].filter(([service, version]) => this.#known(service, version) === undefined));
  }

  /**
   * Reads definitions until it has them all. Metadata that cannot be read is waited for, never replaced by defaults.
   * @param whole these are all there are
   */
  async #fetch(wanted: ReadonlyMap<string, number>, signal: AbortSignal, whole: boolean): Promise<void> {
    for (let attempt = 0; ; attempt += 1) {
      const lost: Lost[] = [];
      await this.#sideBySide(wanted, async ([service, version]) => {
        const one = await this.#fetchOne(service, version, signal);
        if (one !== undefined) lost.push(one);
      });
      const [first] = lost;
      // one number may be somebody's mistake; with nothing behind any of them it is the metadata that is lost
      const isMistake = !whole || lost.length < wanted.size || lost.some(({ last }) => last !== undefined);
      if (first === undefined || isMistake) {
        for (const one of lost) this.#standIn(one);
        break;
      }
      if (this.#state === undefined) throw first.error;
      await this.#waitFor(first, attempt, signal);
    }
    this.#trouble = undefined;
  }

  async #sideBySide<T>(items: Iterable<T>, read: (item: T) => Promise<void>): Promise<void> {
    const left = [...items].values();
    const reading = Array.from({ length: READS_AT_ONCE }, async () => {
      for (const item of left) await read(item);
    });
    await Promise.all(reading);
  }

  /** Resolves with what is lost, if it is. */
  async #fetchOne(service: string, version: number, signal: AbortSignal): Promise<Lost | undefined> {
    for (let attempt = 0; ; attempt += 1) {
      try {
        this.#definitions.set(`${service}/${version}`, await this.#meta.definition(service, version));
        return undefined;
      } catch (error) {
        try {
          if (!LOST.has(errorCode(error) ?? "")) throw error;
          return { service, version, error, last: await this.#lastOf(service) };
        } catch (trouble) {
          // at start there is nothing to serve meanwhile
          if (this.#state === undefined) throw trouble;
          await this.#waitFor({ service, version, error: trouble }, attempt, signal);
        }
      }
    }
  }

  /** What a service was before; as far as a start knows, the newest that is stored. */
  async #lastOf(service: string): Promise<DefinitionVersion | undefined> {
    const before = [...this.#definitions].findLast(([key]) => key.startsWith(`${service}/`))?.[1];
    return before ?? this.#standIns.get(service)?.definition ?? (await this.#meta.newestDefinition(service));
  }

  async #waitFor({ service, version, error }: Omit<Lost, "last">, attempt: number, signal: AbortSignal): Promise<void> {
    this.#trouble = `the definition of ${service} cannot be read: ${describeError(error)}`;
    this.#logger.error({ err: error, service, version }, "definition cannot be read; trying again");
    await this.#clock.sleep(fullJitter(attempt, { baseMs: 100, capMs: 5_000 }), signal);
  }

  #standIn({ service, version, error, last }: Lost): void {
    const why = `${describeError(error)}; ${last === undefined ? "the default counts" : "the one before counts"} until ${service} is defined anew`;
    this.#logger.error({ err: error, service, version }, why);
    const definition = last ?? { definition: defaultDefinition, published: undefined };
    this.#standIns.set(service, { version, definition, why });
  }

  #known(service: string, version: number): DefinitionVersion | undefined {
    const standIn = this.#standIns.get(service);
    return (
      this.#definitions.get(`${service}/${version}`) ?? (standIn?.version === version ? standIn.definition : undefined)
    );
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
      const known = this.#known(service, version);
      if (known === undefined) throw new Error(`version ${version} of ${service} was not read`);
      services.set(service, known.definition);
    }
    // an instance put by hand may be of a service that nobody defined
    for (const { service } of live.instances.values()) {
      if (!services.has(service)) services.set(service, defaultDefinition);
    }
    for (const [service, { version }] of this.#standIns) {
      if (live.definitions.get(service) !== version) this.#standIns.delete(service);
    }
    for (const key of this.#definitions.keys()) {
      const [service = "", version] = key.split("/");
      const counts = live.definitions.get(service);
      // newer ones may be about to count
      const old = counts === undefined ? before.has(service) : Number(version) < counts;
      if (old) this.#definitions.delete(key);
    }
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
