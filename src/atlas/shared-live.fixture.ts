// Several replicas in one process, for tests: live stores over one SQLite file, each with a view of its own that may lag, go
// blind or die, and leases that belong to whoever claimed them. What ZooKeeper does to Atlas, at a fake clock's pace.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AtlasClient } from "../core/api/atlas-client.ts";
import { type FakeClock, fakeClock } from "../core/lib/clock.ts";
import { Fault } from "../core/lib/errors.ts";
import type { HeldLease, Lease, LeaseView, LiveChange, LiveState, LiveStore } from "../core/registry/live-store.ts";
import { createSqliteStores } from "../core/registry/sqlite.ts";
import type { Stores } from "../core/registry/stores.ts";
import { createWorld, settle, type World } from "./fixture.ts";

/** How long the leases of a replica outlive it, in ms. */
export const SESSION_MS = 10_000;

type Listener<T> = (value: T) => void;

/** What all replicas share. */
class Shared {
  readonly core: LiveStore;
  readonly clock: FakeClock;
  leases: ReadonlyMap<string, HeldLease> = new Map();
  replicas: ReadonlyMap<string, string> = new Map();
  readonly views = new Set<SharedLive>();

  constructor(core: LiveStore, clock: FakeClock) {
    this.core = core;
    this.clock = clock;
    core.onChange((change) => this.tell((view) => view.take(change)));
  }

  tell(what: (view: SharedLive) => void): void {
    for (const view of this.views) what(view);
  }

  setLease(host: string, lease: HeldLease | undefined): void {
    const leases = new Map(this.leases);
    if (lease === undefined) leases.delete(host);
    else leases.set(host, lease);
    this.leases = leases;
    this.tell((view) => view.takeLeases(this.leases));
  }

  setReplica(name: string, url: string | undefined): void {
    const replicas = new Map(this.replicas);
    if (url === undefined) replicas.delete(name);
    else replicas.set(name, url);
    this.replicas = replicas;
    this.tell((view) => view.takeReplicas(this.replicas));
  }
}

/** One replica's view. */
export class SharedLive implements LiveStore {
  readonly replica: string;
  readonly #shared: Shared;
  readonly #changes = new Set<Listener<LiveChange>>();
  readonly #leaseListeners = new Set<Listener<LeaseView>>();
  readonly #replicaListeners = new Set<Listener<ReadonlyMap<string, string>>>();
  readonly #sight = new Set<() => void>();
  #state: LiveState;
  #leases: LeaseView;
  #backlog: (() => void)[] = [];
  #paused = false;
  #blind = false;
  #dead = false;

  constructor(shared: Shared, replica: string) {
    this.#shared = shared;
    this.replica = replica;
    this.#state = shared.core.state();
    this.#leases = shared.leases;
    shared.views.add(this);
  }

  /** Shows nothing new until `resume`, but believes itself well. */
  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#flush();
  }

  /** The store is away for this replica, and it knows. */
  blind(): void {
    this.#blind = true;
  }

  see(): void {
    this.#blind = false;
    this.#flush();
    for (const listener of this.#sight) listener();
  }

  /** As kill -9: its leases and its name vanish when its session ends. */
  die(): void {
    this.#dead = true;
    this.#shared.views.delete(this);
    this.#endSession();
  }

  /** As when this replica alone does not reach the store: it is blind, and its session ends. Its agents stay. */
  cutOff(): void {
    this.blind();
    this.#endSession();
  }

  #endSession(): void {
    this.#shared.clock.after(SESSION_MS, () => {
      for (const [host, { replica }] of this.#shared.leases)
        if (replica === this.replica) this.#shared.setLease(host, undefined);
      this.#shared.setReplica(this.replica, undefined);
    });
  }

  take(change: LiveChange): void {
    this.#show(() => {
      this.#state = change.state;
      for (const listener of this.#changes) listener(change);
    });
  }

  takeLeases(leases: LeaseView): void {
    this.#show(() => {
      this.#leases = leases;
      for (const listener of this.#leaseListeners) listener(leases);
    });
  }

  takeReplicas(replicas: ReadonlyMap<string, string>): void {
    for (const listener of this.#replicaListeners) listener(replicas);
  }

  async open(): Promise<void> {}
  async close(): Promise<void> {}
  state = (): LiveState => this.#state;
  onChange = (listener: Listener<LiveChange>) => subscribe(this.#changes, listener);
  leases = (): LeaseView => this.#leases;
  onLeases = (listener: Listener<LeaseView>) => subscribe(this.#leaseListeners, listener);
  replicas = () => this.#shared.replicas;
  onReplicas = (listener: Listener<ReadonlyMap<string, string>>) => subscribe(this.#replicaListeners, listener);
  onSight = (listener: () => void) => subscribe(this.#sight, listener);
  away = () => this.#shared.core.away();
  problems = () => [];
  degraded = () => (this.#blind ? "ZooKeeper is away" : undefined);

  updateInstance: LiveStore["updateInstance"] = (...write) =>
    this.#write(() => this.#shared.core.updateInstance(...write));
  setDefinition: LiveStore["setDefinition"] = (...write) =>
    this.#write(() => this.#shared.core.setDefinition(...write));
  deleteService: LiveStore["deleteService"] = (...write) =>
    this.#write(() => this.#shared.core.deleteService(...write));
  setSettings: LiveStore["setSettings"] = (...write) => this.#write(() => this.#shared.core.setSettings(...write));
  restore: LiveStore["restore"] = (content) => this.#write(() => this.#shared.core.restore(content));

  claimLease(lease: Lease): Promise<void> {
    return this.#write(async () => this.#shared.setLease(lease.host, { ...lease, replica: this.replica }));
  }

  releaseLease(host: string): Promise<void> {
    return this.#write(async () => {
      if (this.#shared.leases.get(host)?.replica === this.replica) this.#shared.setLease(host, undefined);
    });
  }

  async announce(url: string): Promise<void> {
    this.#shared.setReplica(this.replica, url);
  }

  async #write<T>(write: () => Promise<T>): Promise<T> {
    if (this.#blind || this.#dead) throw new Fault({ code: "unavailable", message: "ZooKeeper is away" });
    const written = await write();
    // what it wrote itself it sees before anybody hears that it is written
    this.#flush();
    return written;
  }

  #show(what: () => void): void {
    this.#backlog.push(what);
    if (!this.#paused && !this.#blind) this.#flush();
  }

  #flush(): void {
    for (const what of this.#backlog.splice(0)) what();
  }
}

function subscribe<T>(listeners: Set<T>, listener: T): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export type Replica = World & {
  readonly live: SharedLive;
  /** Answers no peer until `wake`; the rest of it goes on. */
  sleep(): void;
  wake(): void;
  /** As kill -9. */
  kill(): Promise<void>;
};

export type Fleet = {
  readonly clock: FakeClock;
  /** Starts another replica. */
  start(name: string): Promise<Replica>;
  /** Lets everything that needs no time happen. */
  settle(): Promise<void>;
  pass(ms: number): Promise<void>;
  dispose(): Promise<void>;
};

export async function createFleet(): Promise<Fleet> {
  const directory = await mkdtemp(join(tmpdir(), "smartstack-fleet-"));
  const clock = fakeClock();
  const stores = createSqliteStores({ directory, realm: "local", clock });
  await stores.live.open();
  await stores.meta.open();
  const shared = new Shared(stores.live, clock);
  const alive = new Map<string, { readonly world: World; sleep: PromiseWithResolvers<void> | undefined }>();
  // streams between replicas take a few turns of the event loop
  const rest = async (): Promise<void> => {
    for (let turn = 0; turn < 8; turn += 1) await settle();
  };

  const connect = (name: string): AtlasClient => ({
    async fetch(_path, { signal }) {
      const replica = await reach(name, signal);
      const { world } = replica;
      const reader = world.feed.open();
      signal.addEventListener("abort", () => reader.end("the reader went away"));
      const gate = new TransformStream<Uint8Array, Uint8Array>({
        async transform(chunk, controller) {
          await replica.sleep?.promise;
          controller.enqueue(chunk);
        },
      });
      return new Response(reader.body.pipeThrough(gate));
    },
    async request(path, { schema, timeoutMs = 0 }) {
      const giveUp = new AbortController();
      const cancel = clock.after(timeoutMs, () => giveUp.abort(new Error("no answer in time")));
      const { world } = await reach(name, giveUp.signal).finally(cancel);
      const host = decodeURIComponent(path.split("/").at(-1) ?? "");
      return schema.parse({ boot: world.leases.presence(host) ?? null });
    },
  });
  const reach = async (name: string, signal: AbortSignal) => {
    const replica = alive.get(name);
    if (replica === undefined) throw new Error("nobody listens there");
    if (replica.sleep !== undefined) await clock.sleep(3_600_000, signal);
    return replica;
  };

  return {
    clock,
    settle: rest,
    async start(name) {
      const live = new SharedLive(shared, name);
      const meta: Stores["meta"] = new Proxy(stores.meta, {
        get: (target, key) =>
          key === "open" || key === "close" ? async () => undefined : bound(target, Reflect.get(target, key, target)),
      });
      const world = await createWorld({ clock, directory: "unused", stores: () => ({ live, meta }), connect });
      const replica: { readonly world: World; sleep: PromiseWithResolvers<void> | undefined } = {
        world,
        sleep: undefined,
      };
      alive.set(name, replica);
      // those who were told of it before it answered ask again after at most 100 ms
      await clock.advance(100);
      await rest();
      return Object.assign(world, {
        live,
        sleep() {
          replica.sleep = Promise.withResolvers();
        },
        wake() {
          replica.sleep?.resolve();
          replica.sleep = undefined;
        },
        async kill() {
          alive.delete(name);
          live.die();
          await world.dispose();
        },
      });
    },
    async pass(ms) {
      await clock.advance(ms);
      await rest();
    },
    async dispose() {
      for (const { world } of alive.values()) await world.dispose();
      await stores.meta.close();
      await stores.live.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function bound(target: object, value: unknown): unknown {
  return typeof value === "function" ? value.bind(target) : value;
}
