// The live half of the registry: which instances exist, which version of a definition counts, who holds a lease.
// Small, hot, and ordered by revision. ZooKeeper in a cluster, SQLite embedded; contract.ts holds both to this text.
import type { Instance, Registration } from "../model/instance.ts";
import type { Position } from "../model/position.ts";
import type { Removal, RemovalReason } from "../model/snapshot.ts";

/** Everything at one position. Immutable: a change makes a new one, so a reader may keep it as long as it likes. */
export type LiveState = Position & {
  /** Service → the number of the definition version that counts; the version itself lies in the meta store. */
  readonly definitions: ReadonlyMap<string, number>;
  /** Service → the number of the settings version that counts. Not part of the revision. */
  readonly settings: ReadonlyMap<string, number>;
  /** By `service/instance`. Only what is registered; an operator's intent about an absent instance stays inside the store. */
  readonly instances: ReadonlyMap<string, Instance>;
  /** Removals of the last 24 h, by `service/instance`; gone when the instance returns. */
  readonly removed: ReadonlyMap<string, Removal>;
};

/** What one change of `LiveState` was. `since` is the revision it follows. */
export type LiveChange =
  | {
      readonly kind: "change";
      readonly state: LiveState;
      readonly since: number;
      readonly definitions: { readonly put: ReadonlyMap<string, number>; readonly delete: readonly string[] };
      readonly instances: {
        readonly put: readonly Instance[];
        readonly delete: readonly { readonly id: string; readonly reason?: RemovalReason }[];
      };
    }
  /** The store was wiped, restored or imported: a new generation, nothing follows from what was. */
  | { readonly kind: "reset"; readonly state: LiveState }
  | { readonly kind: "settings"; readonly state: LiveState; readonly service: string };

/** An instance as a decision sees it: `registration` is missing while only the operator's intent is known. */
export type InstanceRecord = { readonly registration: Registration | undefined; readonly enabled: boolean };

/** What to do with an instance, decided by a pure function on its current record. */
export type InstanceDecision =
  | { readonly kind: "keep" }
  | { readonly kind: "put"; readonly registration: Registration; readonly enabled: boolean }
  /** Changes the operator's intent alone; also possible while the instance is away but known. */
  | { readonly kind: "intend"; readonly enabled: boolean }
  /** `forget` also drops the operator's intent; otherwise a disabled instance stays disabled when it returns. */
  | { readonly kind: "remove"; readonly reason: RemovalReason; readonly forget: boolean };

/** The answer to a write. `changed` is false when the store already said so; then nothing was written. */
export type Written = Position & { readonly changed: boolean };

/** An agent's claim that its instances live, held by the replica that the agent watches. */
export type Lease = { readonly host: string; readonly boot: string; readonly zone: string; readonly version: string };

/** A lease and the replica that holds it. */
export type HeldLease = Lease & { readonly replica: string };

/** By host. */
export type LeaseView = ReadonlyMap<string, HeldLease>;

/** Replica → the URL that other replicas reach it at. */
export type ReplicaView = ReadonlyMap<string, string>;

/** All that a backup keeps of live state. */
export type LiveContent = {
  readonly definitions: ReadonlyMap<string, number>;
  readonly settings: ReadonlyMap<string, number>;
  readonly instances: readonly Instance[];
  /** Instances that are away and that an operator disabled. */
  readonly away: readonly { readonly service: string; readonly instance: string }[];
};

export interface LiveStore {
  /** Reads everything; afterwards `state()` answers. @throws Fault `store_*` with what to do when it cannot be opened */
  open(): Promise<void>;
  close(): Promise<void>;

  /** The newest published state, from memory. Never torn, never waits. */
  state(): LiveState;
  /** Called once for every published change, in order, after `state()` shows it. Returns the way to stop. */
  onChange(listener: (change: LiveChange) => void): () => void;

  /**
   * Reads, decides and writes one instance atomically; `decide` may run several times (after a lost race) and may throw
   * to refuse. A `put` whose service has no definition version is refused: define first.
   * The write is published (`state()`, `onChange`) before the promise resolves.
   */
  updateInstance(
    service: string,
    instance: string,
    decide: (current: InstanceRecord | undefined) => InstanceDecision,
  ): Promise<Written>;

  /**
   * Moves the definition of a service to a version: the commit.
   * @param expected the version it must be at (undefined: none yet). @throws Fault `conflict` when it is at another
   */
  setDefinition(service: string, version: number, expected: number | undefined): Promise<Written>;
  /** Removes a service. @throws Fault `conflict` while instances remain, unless `force`, which deregisters them. */
  deleteService(service: string, options: { readonly force: boolean }): Promise<Written>;
  /** Moves the settings of a service to a version. @throws Fault `conflict` as `setDefinition`. */
  setSettings(service: string, version: number, expected: number | undefined): Promise<Written>;

  /** Live leases of all replicas. */
  leases(): LeaseView;
  /** Called after any lease appeared or vanished. */
  onLeases(listener: (leases: LeaseView) => void): () => void;
  /**
   * Claims the lease of a host for this replica; taking it over from another replica is part of it. From then on it is this
   * replica's until it is released or taken over: what the store loses with a session, it puts back by itself.
   */
  claimLease(lease: Lease): Promise<void>;
  /** Gives up a lease that this replica holds; another replica's stays. */
  releaseLease(host: string): Promise<void>;

  /** Instances that are away and that an operator disabled: `state()` does not show them. */
  away(): LiveContent["away"];
  /**
   * Makes the live state exactly `content` and begins a new generation, max(old + 1, now in Unix seconds): a `reset` for every
   * watcher. What goes has no reason, so that agents doubt it. One restore at a time; one that broke off is repeated.
   */
  restore(content: LiveContent): Promise<Position>;

  /** The name of this replica among `replicas()`. */
  readonly replica: string;
  /** Tells the other replicas where this one is reached, for as long as it lives. */
  announce(url: string): Promise<void>;
  /** The replicas that live, this one too once it announced itself. */
  replicas(): ReplicaView;
  /** Called after any replica came, went or moved. */
  onReplicas(listener: (replicas: ReplicaView) => void): () => void;
  /**
   * Called when the store sees again after it could not, leases included: whatever vanished meanwhile, nobody saw how long
   * ago. Grace starts anew.
   */
  onSight(listener: () => void): () => void;

  /**
   * What lies in the store and makes no sense, each with its place: somebody wrote it by hand. It is ignored, and the last
   * good value stays.
   */
  problems(): readonly string[];
  /** Why the store cannot write now, in words for `/readyz`, or undefined when all is well. */
  degraded(): string | undefined;
}
