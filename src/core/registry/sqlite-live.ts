// The live half of the embedded store. Memory holds the state and the file follows it: a transaction works on a draft, and
// the draft becomes the state once it is on disk.
import type { Database } from "bun:sqlite";
import type { Cancel, Clock } from "../lib/clock.ts";
import { Fault } from "../lib/errors.ts";
import type { Position } from "../model/position.ts";
import { instanceId, parseInstanceId } from "../model/names.ts";
import type {
  HeldLease,
  InstanceDecision,
  InstanceRecord,
  Lease,
  LeaseView,
  LiveChange,
  LiveContent,
  LiveState,
  LiveStore,
  ReplicaView,
  Written,
} from "./live-store.ts";
import { Draft, type Held } from "./sqlite-draft.ts";
import type { SqliteFile } from "./sqlite-file.ts";
import { obey, purge, remove } from "./sqlite-instances.ts";
import { restore } from "./sqlite-restore.ts";
import { identify, load } from "./sqlite-load.ts";

/** How long a removal keeps its reason. */
const REMOVED_KEPT_MS = 24 * 3_600_000;
/** How often an idle store looks for removals that are too old. */
const PURGE_EVERY_MS = 600_000;

export type SqliteLiveOptions = { readonly file: SqliteFile; readonly realm: string; readonly clock: Clock };

/** Leases that are about to be shown. */
type LeasesNext = { readonly leases: Map<string, HeldLease>; readonly shown: Promise<void> };

export class SqliteLive implements LiveStore {
  /** There is never another. */
  readonly replica = "embedded";
  readonly #file: SqliteFile;
  readonly #realm: string;
  readonly #clock: Clock;
  readonly #listeners = new Set<(change: LiveChange) => void>();
  readonly #leaseListeners = new Set<(leases: LeaseView) => void>();
  readonly #replicaListeners = new Set<(replicas: ReplicaView) => void>();
  #leases: LeaseView = new Map();
  #leasesNext: LeasesNext | undefined;
  #held: Held | undefined;
  #draft: Draft | undefined;
  #replicas: ReplicaView = new Map();
  #purge: Cancel | undefined;

  constructor({ file, realm, clock }: SqliteLiveOptions) {
    this.#file = file;
    this.#realm = realm;
    this.#clock = clock;
    file.join({
      prepare: (db) => this.#prepare(db),
      committed: () => this.#committed(),
      rolledBack: () => {
        this.#draft = undefined;
      },
    });
  }

  /** @throws Fault `store_realm` when the file belongs to another realm, and what `SqliteFile.open` throws */
  async open(): Promise<void> {
    if (this.#held !== undefined) return;
    this.#file.open();
    try {
      const generation = await this.#file.write((db) => identify(db, this.#realm, this.#clock.now()));
      this.#held = this.#file.read((db) => load(db, generation, this.#file.path));
    } catch (error) {
      this.#file.close();
      throw error;
    }
    this.#schedulePurge();
  }

  async close(): Promise<void> {
    this.#purge?.();
    this.#file.close();
    this.#held = undefined;
  }

  state(): LiveState {
    return this.#current().state;
  }

  onChange(listener: (change: LiveChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  updateInstance(
    service: string,
    instance: string,
    decide: (current: InstanceRecord | undefined) => InstanceDecision,
  ): Promise<Written> {
    return this.#write((db, draft) => {
      const target = { service, instance, id: instanceId(service, instance) };
      const current = draft.record(target.id);
      return obey(db, draft, target, current, decide(current), this.#clock.now());
    });
  }

  setDefinition(service: string, version: number, expected: number | undefined): Promise<Written> {
    return this.#write((db, draft) => {
      const current = draft.definitions.now.get(service);
      expectVersion(`the definition of ${service}`, current, expected);
      if (current === version) return false;
      db.query("INSERT OR REPLACE INTO definitions VALUES (?, ?)").run(service, version);
      draft.definitions.edit().set(service, version);
      draft.touchedServices.add(service);
      draft.moved = true;
      return true;
    });
  }

  deleteService(service: string, { force }: { readonly force: boolean }): Promise<Written> {
    return this.#write((db, draft) => {
      const instances = [...draft.instances.now.values()].filter((instance) => instance.service === service);
      if (instances.length > 0 && !force) {
        throw new Fault({
          code: "conflict",
          message: `${service} still has ${instances.length} ${instances.length === 1 ? "instance" : "instances"}`,
          hint: "Deregister them first, or say force=true to remove them with it.",
        });
      }
      for (const instance of instances) remove(db, draft, instance, "deregistered", this.#clock.now());
      const away = [...draft.away.now.keys()].filter((id) => id.startsWith(`${service}/`));
      for (const id of away) draft.away.edit().delete(id);
      db.query("DELETE FROM instances WHERE service = ?").run(service);
      const known = draft.definitions.now.has(service);
      if (known) {
        db.query("DELETE FROM definitions WHERE service = ?").run(service);
        draft.definitions.edit().delete(service);
        draft.touchedServices.add(service);
      }
      const changed = known || away.length > 0 || instances.length > 0;
      draft.moved ||= changed;
      return changed;
    });
  }

  setSettings(service: string, version: number, expected: number | undefined): Promise<Written> {
    return this.#write((db, draft) => {
      const current = draft.settings.now.get(service);
      expectVersion(`the settings of ${service}`, current, expected);
      if (current === version) return false;
      db.query("INSERT OR REPLACE INTO settings VALUES (?, ?)").run(service, version);
      draft.settings.edit().set(service, version);
      draft.touchedSettings.add(service);
      return true;
    });
  }

  leases(): LeaseView {
    return this.#leases;
  }

  onLeases(listener: (leases: LeaseView) => void): () => void {
    this.#leaseListeners.add(listener);
    return () => this.#leaseListeners.delete(listener);
  }

  // one process, one replica: a lease is what this process says, and ends with it
  claimLease(lease: Lease): Promise<void> {
    return this.#changeLeases((leases) => leases.set(lease.host, { ...lease, replica: this.replica }));
  }

  releaseLease(host: string): Promise<void> {
    return this.#changeLeases((leases) => leases.delete(host));
  }

  away(): LiveContent["away"] {
    return [...this.#current().away.keys()].map(parseInstanceId);
  }

  restore(content: LiveContent): Promise<Position> {
    return this.#write((db, draft) => {
      restore(db, draft, content, this.#clock.now());
      return true;
    });
  }

  async announce(url: string): Promise<void> {
    this.#replicas = new Map([[this.replica, url]]);
    for (const listener of this.#replicaListeners) listener(this.#replicas);
  }

  replicas(): ReplicaView {
    return this.#replicas;
  }

  onReplicas(listener: (replicas: ReplicaView) => void): () => void {
    this.#replicaListeners.add(listener);
    return () => this.#replicaListeners.delete(listener);
  }

  /** The file's own process never loses sight of it. */
  onSight(): () => void {
    return () => undefined;
  }

  /** Nobody writes there by hand: a row that makes no sense refuses to open. */
  problems(): readonly string[] {
    return [];
  }

  degraded(): string | undefined {
    return this.#file.trouble();
  }

  /** Those that change in one turn, as after a restart, are shown together: a view of thousands is dear. */
  #changeLeases(change: (leases: Map<string, HeldLease>) => unknown): Promise<void> {
    this.#leasesNext ??= this.#collectLeases();
    change(this.#leasesNext.leases);
    return this.#leasesNext.shown;
  }

  #collectLeases(): LeasesNext {
    const leases = new Map(this.#leases);
    const { promise: shown, resolve } = Promise.withResolvers<void>();
    setImmediate(() => {
      this.#leasesNext = undefined;
      this.#leases = leases;
      for (const listener of this.#leaseListeners) listener(leases);
      resolve();
    });
    return { leases, shown };
  }

  #current(): Held {
    if (this.#held === undefined) throw new Fault({ code: "unavailable", message: "the store is not open" });
    return this.#held;
  }

  /** One write in the next transaction; `work` says whether it changed anything. */
  #write(work: (db: Database, draft: Draft) => boolean): Promise<Written> {
    return this.#file.write((db) => {
      this.#draft ??= new Draft(this.#current());
      const draft = this.#draft;
      const changed = work(db, draft);
      return {
        generation: draft.generation,
        revision: draft.moved ? draft.revision : draft.base.revision,
        changed,
      };
    });
  }

  #prepare(db: Database): void {
    const draft = this.#draft;
    if (draft === undefined || !draft.moved) return;
    purge(db, draft, this.#clock.now() - REMOVED_KEPT_MS);
    db.query("UPDATE facts SET value = ? WHERE name = 'revision'").run(draft.revision);
  }

  #committed(): void {
    const draft = this.#draft;
    this.#draft = undefined;
    if (draft === undefined) return;
    this.#held = draft.held();
    for (const change of draft.changes(this.#held.state)) {
      for (const listener of this.#listeners) listener(change);
    }
  }

  #schedulePurge(): void {
    this.#purge = this.#clock.after(PURGE_EVERY_MS, () => {
      const oldest = this.#clock.now() - REMOVED_KEPT_MS;
      const due = [...this.#current().removedAt.values()].some((at) => at < oldest);
      // a failure is told by degraded(), and the next round tries again
      if (due) void this.#write((db, draft) => purge(db, draft, oldest)).catch(() => undefined);
      this.#schedulePurge();
    });
  }
}

function expectVersion(what: string, current: number | undefined, expected: number | undefined): void {
  if (current === expected) return;
  throw new Fault({
    code: "conflict",
    message: `${what} changed meanwhile: it is at version ${current ?? "none"}, not ${expected ?? "none"}`,
    hint: "Read it again and repeat.",
  });
}
