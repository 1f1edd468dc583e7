// What every store must do, run against each of them: SQLite and ZooKeeper + DynamoDB cannot drift apart.
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { errorCode } from "../lib/errors.ts";
import { type Instance, type PutInstance, registrationFromPut } from "../model/instance.ts";
import { defaultDefinition } from "../model/service.ts";
import type { InstanceDecision, LiveChange, LiveStore, Written } from "./live-store.ts";
import type { AuditEntry, MetaStore } from "./meta-store.ts";

/** One registry under test. */
export type StoreUnderTest = {
  readonly live: LiveStore;
  readonly meta: MetaStore;
  /** The same registry, opened anew as after a restart of Atlas; this one is closed. */
  reopen(): Promise<StoreUnderTest>;
  /** Moves the time that the store goes by, in ms. */
  advance(ms: number): Promise<void>;
  /** Closes it and removes what it left. */
  dispose(): Promise<void>;
};

const DAY_MS = 24 * 3_600_000;

/** @param create an empty registry, open, whose clock the suite moves */
export function describeStoreContract(name: string, create: () => Promise<StoreUnderTest>): void {
  describe(`${name} keeps the contract of a store:`, () => {
    let store: StoreUnderTest;
    let changes: LiveChange[];

    const listen = (): void => {
      changes = [];
      store.live.onChange((change) => changes.push(change));
    };
    const define = async (service: string): Promise<Written> => {
      const version = await store.meta.addDefinition(service, { definition: defaultDefinition, published: undefined });
      return store.live.setDefinition(service, version, store.live.state().definitions.get(service));
    };
    const put = (service: string, instance: string, body: Partial<PutInstance> = {}): Promise<Written> =>
      store.live.updateInstance(service, instance, (current) => ({
        kind: "put",
        registration: registrationFromPut(service, instance, { port: 5000, ...body }),
        enabled: body.enabled ?? current?.enabled ?? true,
      }));
    const decide = (service: string, instance: string, decision: InstanceDecision): Promise<Written> =>
      store.live.updateInstance(service, instance, () => decision);
    const remove = (service: string, instance: string, forget = false): Promise<Written> =>
      decide(service, instance, { kind: "remove", reason: "deregistered", forget });
    const instance = (id: string): Instance | undefined => store.live.state().instances.get(id);

    beforeEach(async () => {
      store = await create();
      listen();
    });
    afterEach(async () => {
      await store.dispose();
    });

    describe("live state", () => {
      test("an empty registry has a generation in Unix seconds and holds nothing", () => {
        const state = store.live.state();
        expect(state.generation).toBeGreaterThan(1_600_000_000);
        expect(state.generation).toBeLessThan(10_000_000_000);
        expect(state.revision).toBeGreaterThanOrEqual(0);
        expect([state.instances.size, state.definitions.size, state.settings.size, state.removed.size]).toEqual([
          0, 0, 0, 0,
        ]);
      });

      test("a write is visible, and told to listeners, before its promise resolves", async () => {
        const start = store.live.state().revision;
        const defined = await define("identity");
        expect(defined).toMatchObject({ changed: true });
        expect(defined.revision).toBeGreaterThan(start);
        const written = await put("identity", "host001:5000", { zone: "a" });
        expect(written.revision).toBeGreaterThan(defined.revision);
        expect(store.live.state()).toMatchObject({ generation: written.generation, revision: written.revision });
        expect(instance("identity/host001:5000")).toEqual({
          id: "identity/host001:5000",
          service: "identity",
          instance: "host001:5000",
          host: "host001",
          address: "host001",
          port: 5000,
          enabled: true,
          healthy: null,
          draining: false,
          weight: 100,
          zone: "a",
          version: "",
          agent: null,
        });
        const last = changes.at(-1);
        expect(last).toMatchObject({ kind: "change", since: defined.revision, instances: { delete: [] } });
        expect(last?.kind === "change" && last.instances.put).toEqual([instance("identity/host001:5000") as Instance]);
      });

      test("every change follows the one before: since is the revision that was", async () => {
        let position = store.live.state().revision;
        await define("identity");
        await Promise.all(["a", "b", "c", "d"].map((host) => put("identity", host)));
        await remove("identity", "b");
        await define("billing");
        await store.live.deleteService("billing", { force: false });
        for (const change of changes) {
          if (change.kind !== "change") continue;
          expect(change.since).toBe(position);
          expect(change.state.revision).toBeGreaterThan(position);
          position = change.state.revision;
        }
        expect(position).toBe(store.live.state().revision);
      });

      test("a state that was read stays as it was", async () => {
        await define("identity");
        await put("identity", "a");
        const before = store.live.state();
        await put("identity", "b");
        await remove("identity", "a");
        expect([...before.instances.keys()]).toEqual(["identity/a"]);
        expect(before.removed.size).toBe(0);
      });

      test("writing the same thing twice changes nothing and tells nobody", async () => {
        await define("identity");
        const first = await put("identity", "a", { weight: 7 });
        const told = changes.length;
        expect(await put("identity", "a", { weight: 7 })).toEqual({ ...first, changed: false });
        expect(await decide("identity", "a", { kind: "intend", enabled: true })).toEqual({ ...first, changed: false });
        expect(await decide("identity", "a", { kind: "keep" })).toEqual({ ...first, changed: false });
        const removed = await remove("identity", "a");
        expect(removed.changed).toBe(true);
        expect(await remove("identity", "a")).toEqual({ ...removed, changed: false });
        expect(changes.length).toBe(told + 1);
      });

      test("an instance of an undefined service is refused", async () => {
        expect(await codeOf(put("nobody", "a"))).toBe("conflict");
        expect(instance("nobody/a")).toBeUndefined();
        expect(changes).toEqual([]);
      });

      test("a decision may refuse, and then nothing is written", async () => {
        await define("identity");
        const before = store.live.state();
        const refusal = store.live.updateInstance("identity", "a", () => {
          throw new Error("no");
        });
        expect(await refusal.catch((error: unknown) => String(error))).toBe("Error: no");
        expect(store.live.state()).toEqual(before);
      });

      test("concurrent writers of one instance see each other's result", async () => {
        await define("identity");
        await put("identity", "a", { weight: 0 });
        await Promise.all(
          Array.from({ length: 20 }, () =>
            store.live.updateInstance("identity", "a", (current) => {
              const registration = current?.registration;
              if (registration === undefined) throw new Error("the instance is gone");
              return {
                kind: "put",
                enabled: true,
                registration: { ...registration, weight: registration.weight + 1 },
              };
            }),
          ),
        );
        expect(instance("identity/a")?.weight).toBe(20);
      });
    });

    describe("removal", () => {
      test("a removal has its reason, in the change and in the state, until the instance returns", async () => {
        await define("identity");
        await put("identity", "a");
        const written = await decide("identity", "a", { kind: "remove", reason: "expired", forget: false });
        const removal = { id: "identity/a", reason: "expired", revision: written.revision };
        expect([...store.live.state().removed.values()]).toEqual([removal as never]);
        const last = changes.at(-1);
        expect(last?.kind === "change" && last.instances).toEqual({
          put: [],
          delete: [{ id: "identity/a", reason: "expired" }],
        });
        await put("identity", "a");
        expect(store.live.state().removed.size).toBe(0);
      });

      test("a removal is forgotten after 24 hours", async () => {
        await define("identity");
        await put("identity", "a");
        await remove("identity", "a");
        await store.advance(DAY_MS - 60_000);
        expect(store.live.state().removed.size).toBe(1);
        const { revision } = store.live.state();
        await store.advance(DAY_MS);
        expect(store.live.state().removed.size).toBe(0);
        expect(store.live.state().revision).toBeGreaterThan(revision);
      });
    });

    describe("the operator's intent", () => {
      test("it outlives deregistration: a disabled instance comes back disabled", async () => {
        await define("identity");
        await put("identity", "a");
        await decide("identity", "a", { kind: "intend", enabled: false });
        expect(instance("identity/a")?.enabled).toBe(false);
        await remove("identity", "a");
        expect(instance("identity/a")).toBeUndefined();
        await put("identity", "a");
        expect(instance("identity/a")?.enabled).toBe(false);
      });

      test("it can change while the instance is away", async () => {
        await define("identity");
        await put("identity", "a", { enabled: false });
        await remove("identity", "a");
        expect((await decide("identity", "a", { kind: "intend", enabled: true })).changed).toBe(true);
        await put("identity", "a");
        expect(instance("identity/a")?.enabled).toBe(true);
      });

      test("forgetting removes it too", async () => {
        await define("identity");
        await put("identity", "a", { enabled: false });
        await remove("identity", "a", true);
        await put("identity", "a");
        expect(instance("identity/a")?.enabled).toBe(true);
        await put("identity", "a", { enabled: false });
        await remove("identity", "a");
        expect((await remove("identity", "a", true)).changed).toBe(true);
        await put("identity", "a");
        expect(instance("identity/a")?.enabled).toBe(true);
      });

      test("there is none about an instance that nobody knows", async () => {
        await define("identity");
        expect(await codeOf(decide("identity", "a", { kind: "intend", enabled: false }))).toBe("not_found");
      });
    });

    describe("services", () => {
      test("a definition moves only from the version that the writer saw", async () => {
        const version = await store.meta.addDefinition("identity", {
          definition: defaultDefinition,
          published: undefined,
        });
        expect(await codeOf(store.live.setDefinition("identity", version, version + 1))).toBe("conflict");
        expect((await store.live.setDefinition("identity", version, undefined)).changed).toBe(true);
        expect((await store.live.setDefinition("identity", version, version)).changed).toBe(false);
        expect(await codeOf(store.live.setDefinition("identity", version + 1, undefined))).toBe("conflict");
        expect(store.live.state().definitions.get("identity")).toBe(version);
      });

      test("a service with instances goes only by force, and its instances with it", async () => {
        await define("identity");
        await define("billing");
        await put("identity", "a");
        await put("identity", "b", { enabled: false });
        await put("billing", "a");
        expect(await codeOf(store.live.deleteService("identity", { force: false }))).toBe("conflict");
        const written = await store.live.deleteService("identity", { force: true });
        expect([...store.live.state().instances.keys()]).toEqual(["billing/a"]);
        expect([...store.live.state().definitions.keys()]).toEqual(["billing"]);
        const last = changes.at(-1);
        expect(last?.kind === "change" && last.definitions.delete).toEqual(["identity"]);
        expect(last?.kind === "change" && last.instances.delete.map(({ reason }) => reason)).toEqual([
          "deregistered",
          "deregistered",
        ]);
        expect(await store.live.deleteService("identity", { force: true })).toEqual({ ...written, changed: false });
        await define("identity");
        await put("identity", "b");
        expect(instance("identity/b")?.enabled).toBe(true);
      });
    });

    describe("settings", () => {
      test("they move like definitions, but never the revision", async () => {
        const version = await store.meta.addSettings("identity", { A: 1 }, "2026-01-01T00:00:00.000Z", "ann");
        const { revision } = store.live.state();
        const written = await store.live.setSettings("identity", version, undefined);
        expect(written).toMatchObject({ changed: true, revision });
        expect(store.live.state()).toMatchObject({ revision });
        expect(store.live.state().settings.get("identity")).toBe(version);
        expect(changes.map(({ kind }) => kind)).toEqual(["settings"]);
        expect(await codeOf(store.live.setSettings("identity", version + 1, undefined))).toBe("conflict");
        expect((await store.live.setSettings("identity", version, version)).changed).toBe(false);
      });
    });

    describe("leases", () => {
      test("a lease appears when claimed, follows a new boot, and vanishes when released", async () => {
        const seen: string[] = [];
        const stop = store.live.onLeases((leases) => seen.push([...leases.values()].map(({ boot }) => boot).join(",")));
        await store.live.claimLease({ host: "a", boot: "1", zone: "z", version: "v" });
        const { replica } = store.live;
        expect(store.live.leases().get("a")).toEqual({ host: "a", boot: "1", zone: "z", version: "v", replica });
        await store.live.claimLease({ host: "a", boot: "2", zone: "z", version: "v" });
        await store.live.releaseLease("a");
        await store.live.releaseLease("a");
        expect(store.live.leases().size).toBe(0);
        expect(seen.filter((line, index) => line !== seen[index - 1])).toEqual(["1", "2", ""]);
        stop();
        await store.live.claimLease({ host: "a", boot: "3", zone: "z", version: "v" });
        expect(seen).not.toContain("3");
        await store.live.releaseLease("a");
      });
    });

    describe("replicas", () => {
      test("one that announced itself is known by its URL", async () => {
        const seen: string[] = [];
        store.live.onReplicas((replicas) => seen.push([...replicas.values()].join()));
        expect(store.live.replicas().size).toBe(0);
        await store.live.announce("http://127.0.0.1:7400");
        expect([...store.live.replicas()]).toEqual([[store.live.replica, "http://127.0.0.1:7400"]]);
        expect(seen).toEqual(["http://127.0.0.1:7400"]);
      });
    });

    describe("a backup", () => {
      test("replaces everything and begins a new generation, with the intents about those who are away", async () => {
        await define("identity");
        await put("identity", "a", { weight: 7, enabled: false });
        await put("identity", "gone", { enabled: false });
        await remove("identity", "gone");
        const settings = await store.meta.addSettings("identity", { A: 1 }, "2026-01-01", "ann");
        await store.live.setSettings("identity", settings, undefined);
        const before = store.live.state();
        const away = store.live.away();
        expect(away).toEqual([{ service: "identity", instance: "gone" }]);
        await define("billing");
        await put("billing", "b");
        await remove("identity", "a", true);
        await put("identity", "gone", { enabled: true });
        const { generation, revision } = store.live.state();
        changes.length = 0;
        const { definitions, instances } = before;
        const content = { definitions, settings: before.settings, instances: [...instances.values()], away };
        const restored = await store.live.restore(content);
        expect(restored.generation).toBeGreaterThan(generation);
        expect(restored.revision).toBeGreaterThanOrEqual(revision);
        const state = store.live.state();
        expect(state).toMatchObject({ generation: restored.generation, revision: restored.revision });
        expect(state.instances).toEqual(instances);
        expect(state.definitions).toEqual(definitions);
        expect(state.settings).toEqual(before.settings);
        expect(changes.at(-1)).toMatchObject({ kind: "reset", state: { generation: restored.generation } });
        expect(store.live.away()).toEqual(away);
        await put("identity", "gone");
        expect(instance("identity/gone")?.enabled).toBe(false);
        store = await store.reopen();
        expect(store.live.state().generation).toBe(restored.generation);
        expect(instance("identity/a")).toEqual(instances.get("identity/a") as Instance);
      });
    });

    describe("a restart", () => {
      test("loses nothing: position, instances, intents, removals, definitions, settings, ports and audit", async () => {
        await define("identity");
        await put("identity", "a", { healthy: false, draining: true, weight: 0, agent: "a", version: "1.2" });
        await put("identity", "b");
        await remove("identity", "b");
        await put("identity", "c", { enabled: false });
        await remove("identity", "c");
        const settings = await store.meta.addSettings("identity", { A: [1, { b: null }] }, "2026-01-01", "ann");
        await store.live.setSettings("identity", settings, undefined);
        await store.meta.reservePort("identity", new Set());
        await store.meta.addAudit(entry(1));
        const before = store.live.state();
        store = await store.reopen();
        expect(store.live.state()).toEqual(before);
        await put("identity", "c");
        expect(instance("identity/c")?.enabled).toBe(false);
        expect(await store.meta.settings("identity", settings)).toMatchObject({ values: { A: [1, { b: null }] } });
        expect(await store.meta.ports()).toHaveLength(1);
        expect(await store.meta.audit(10)).toHaveLength(1);
        expect(store.live.state().revision).toBeGreaterThan(before.revision);
      });
    });

    describe("metadata", () => {
      test("definition versions are immutable, and their numbers only grow", async () => {
        const published = { ...defaultDefinition, owner: "core", datastores: ["redis"] };
        const first = await store.meta.addDefinition("identity", {
          definition: defaultDefinition,
          published: undefined,
        });
        const second = await store.meta.addDefinition("identity", { definition: published, published });
        expect(second).toBeGreaterThan(first);
        expect(await store.meta.definition("identity", first)).toEqual({
          definition: defaultDefinition,
          published: undefined,
        });
        expect(await store.meta.definition("identity", second)).toEqual({ definition: published, published });
        expect(await store.meta.newestDefinition("identity")).toEqual({ definition: published, published });
        expect(await store.meta.newestDefinition("nobody")).toBeUndefined();
        await store.live.setDefinition("identity", second, undefined);
        await store.live.deleteService("identity", { force: true });
        expect(
          await store.meta.addDefinition("identity", { definition: defaultDefinition, published: undefined }),
        ).toBeGreaterThan(second);
      });

      test("a version that does not exist is an error, never a default", async () => {
        expect(await codeOf(store.meta.definition("identity", 1))).toBe("meta_missing");
        expect(await codeOf(store.meta.settings("identity", 1))).toBe("meta_missing");
      });

      test("settings have a history, newest first, with who and when", async () => {
        const numbers: number[] = [];
        for (const value of [1, 2, 3])
          numbers.push(await store.meta.addSettings("identity", { A: value }, `2026-01-0${value}`, "ann"));
        await store.meta.addSettings("billing", { B: 1 }, "2026-01-01", "bob");
        const history = await store.meta.settingsHistory("identity", 2);
        expect(history).toEqual([
          { service: "identity", version: numbers[2] as number, values: { A: 3 }, at: "2026-01-03", who: "ann" },
          { service: "identity", version: numbers[1] as number, values: { A: 2 }, at: "2026-01-02", who: "ann" },
        ]);
        expect(await store.meta.settings("identity", numbers[0] as number)).toEqual({
          service: "identity",
          version: numbers[0] as number,
          values: { A: 1 },
        });
      });

      test("ports are unique, lowest free first, and the same service keeps its own", async () => {
        const taken = new Set([5001]);
        expect(await store.meta.reservePort("a", taken)).toEqual({ service: "a", port: 5000, created: true });
        expect(await store.meta.reservePort("b", taken)).toEqual({ service: "b", port: 5002, created: true });
        expect(await store.meta.reservePort("a", taken)).toEqual({ service: "a", port: 5000, created: false });
        expect(await store.meta.releasePort("a")).toBe(true);
        expect(await store.meta.releasePort("a")).toBe(false);
        expect(await store.meta.reservePort("c", taken)).toEqual({ service: "c", port: 5000, created: true });
        expect(await store.meta.ports()).toEqual([
          { service: "c", port: 5000 },
          { service: "b", port: 5002 },
        ]);
      });

      test("many who ask for a port at once get different ones", async () => {
        const services = Array.from({ length: 30 }, (_, index) => `service-${index}`);
        const reserved = await Promise.all(services.map((service) => store.meta.reservePort(service, new Set())));
        expect(new Set(reserved.map(({ port }) => port)).size).toBe(30);
      });

      test("a restore replaces every reservation", async () => {
        await store.meta.reservePort("a", new Set());
        await store.meta.reservePort("b", new Set());
        const ports = [
          { service: "c", port: 5000 },
          { service: "b", port: 6000 },
        ];
        await store.meta.replacePorts(ports);
        expect(await store.meta.ports()).toEqual(ports);
        expect(await store.meta.reservePort("d", new Set())).toEqual({ service: "d", port: 5001, created: true });
        await store.meta.replacePorts([]);
        expect(await store.meta.ports()).toEqual([]);
      });

      test("when no port is free, that is a conflict", async () => {
        const all = new Set(Array.from({ length: 25_000 }, (_, index) => 5000 + index));
        expect(await codeOf(store.meta.reservePort("a", all))).toBe("conflict");
        expect(await store.meta.ports()).toEqual([]);
      });

      test("the audit trail is told newest first", async () => {
        for (const number of [1, 2, 3]) await store.meta.addAudit(entry(number));
        expect(await store.meta.audit(2)).toEqual([entry(3), entry(2)]);
        // an import brings older ones
        await store.meta.addAudit(entry(0));
        expect(await store.meta.audit(2)).toEqual([entry(3), entry(2)]);
        expect((await store.meta.audit(9)).at(-1)).toEqual(entry(0));
      });
    });

    test("a store that is well says so", () => {
      expect(store.live.degraded()).toBeUndefined();
      expect(store.meta.degraded()).toBeUndefined();
    });
  });
}

function entry(number: number): AuditEntry {
  return {
    at: `2026-01-01T00:00:0${number}.000Z`,
    who: "ann",
    from: "127.0.0.1",
    kind: "instance.put",
    target: "identity/a",
    reason: number === 1 ? undefined : "because",
    before: null,
    after: { number },
  };
}

/** The code of what a promise rejects with; a promise that resolves is a failure of the test. */
async function codeOf(promise: Promise<unknown>): Promise<string | undefined> {
  try {
    await promise;
  } catch (error) {
    return errorCode(error) ?? String(error);
  }
  throw new Error("this should have been refused");
}
