import { afterEach, describe, expect, test } from "bun:test";
import { errorCode, Fault } from "../core/lib/errors.ts";
import { type Backup, BackupReader, type WrittenLine } from "../core/model/backup.ts";
import { definitionSchema } from "../core/model/service.ts";
import { ACTOR, createWorld, type World, type WorldOptions } from "./fixture.ts";

const worlds: World[] = [];
afterEach(async () => {
  for (const world of worlds.splice(0)) await world.dispose();
});

async function newWorld(options?: WorldOptions): Promise<World> {
  const world = await createWorld(options);
  worlds.push(world);
  return world;
}

/** A realm with some of everything. */
async function furnished(options?: WorldOptions): Promise<World> {
  const world = await newWorld(options);
  const { operations, settings, ports } = world;
  await operations.publishService("identity", definitionSchema.parse({ owner: "core" }), ACTOR);
  await operations.putService("identity", definitionSchema.parse({ owner: "core", retries: 5 }), ACTOR);
  await world.put("identity", "host001:5004", { agent: "host001", weight: 7 });
  await world.put("billing", "host002");
  await operations.patchInstance("billing", "host002", { enabled: false }, ACTOR);
  await world.put("billing", "gone", { agent: "host003" });
  await operations.patchInstance("billing", "gone", { enabled: false }, ACTOR);
  await operations.deleteInstance("billing", "gone", "host003", ACTOR);
  for (const count of [1, 2, 3])
    await settings.put("identity", { COUNT: count }, undefined, { ...ACTOR, who: `w${count}` });
  await ports.reserve("identity", ACTOR);
  return world;
}

async function exported({ backups }: World, audit = true): Promise<readonly WrittenLine[]> {
  return Array.fromAsync(await backups.export({ audit }));
}

function readBack(lines: readonly WrittenLine[]): Backup {
  const reader = new BackupReader();
  for (const [index, line] of lines.entries()) reader.add(index + 1, JSON.parse(JSON.stringify(line)));
  const backup = reader.finish();
  if (backup === undefined) throw new Error(JSON.stringify(reader.issues));
  return backup;
}

const imports = async (
  world: World,
  backup: Backup,
  options: { replace?: boolean; dryRun?: boolean; forceRealm?: boolean } = {},
) => world.backups.import(backup, { replace: false, dryRun: false, forceRealm: false, ...options }, ACTOR);

/** The lines without what differs from one Atlas to the next. */
const lasting = (lines: readonly WrittenLine[]) => lines.filter(({ kind }) => kind !== "header");

describe("export and import", () => {
  test("carry everything to another store, with a higher generation", async () => {
    const from = await furnished();
    const lines = await exported(from);
    const to = await newWorld();
    const { generation } = to.registry.state();
    const found = await imports(to, readBack(lines));
    expect(found).toMatchObject({
      changed: true,
      services: { total: 2, added: 2, changed: 0, removed: 0 },
      instances: { total: 2, added: 2 },
      intents: { total: 1, added: 1 },
      settings: { total: 1, added: 1 },
      ports: { total: 1, added: 1 },
    });
    expect(found.generation).toBeGreaterThan(generation);
    expect(to.registry.state()).toMatchObject({ generation: found.generation, revision: found.revision });
    expect(to.registry.state().instances).toEqual(from.registry.state().instances);
    expect(to.registry.state().services).toEqual(from.registry.state().services);
    // byte for byte, but for the entry about the import itself
    const again = await exported(to);
    expect(lasting(again).slice(0, -2)).toEqual(lasting(lines).slice(0, -1));
    expect(again.at(-2)).toMatchObject({
      kind: "audit",
      entry: {
        who: "ann",
        from: "127.0.0.1",
        kind: "registry.import",
        target: "local",
        before: { services: 0 },
        after: { services: 2 },
      },
    });
    // an operator's edit is still told apart from what the service published
    await to.operations.publishService("identity", definitionSchema.parse({ owner: "money" }), ACTOR);
    expect(to.registry.state().services.get("identity")).toMatchObject({ owner: "money", retries: 5 });
    await to.put("billing", "gone");
    expect(to.registry.state().instances.get("billing/gone")?.enabled).toBe(false);
    expect((await to.meta.settingsHistory("identity", 10)).map(({ values, who }) => [values.COUNT, who])).toEqual([
      [3, "w3"],
      [2, "w2"],
      [1, "w1"],
    ]);
  });

  test("tell one state, whatever is written while it is read", async () => {
    const world = await furnished();
    const before = await exported(world, false);
    const lines = await world.backups.export({ audit: false });
    const told: WrittenLine[] = [(await lines.next()).value as WrittenLine];
    await world.put("identity", "late:1");
    await world.operations.putService("identity", definitionSchema.parse({ owner: "late" }), ACTOR);
    await world.settings.put("identity", { COUNT: 99 }, undefined, ACTOR);
    for await (const line of lines) told.push(line);
    expect(lasting(told)).toEqual(lasting(before));
  });

  test("change nothing the second time", async () => {
    const backup = readBack(await exported(await furnished()));
    const to = await newWorld();
    const first = await imports(to, backup);
    const trail = await to.meta.audit(1_000);
    const second = await imports(to, backup);
    expect(second).toMatchObject({ changed: false, generation: first.generation, revision: first.revision, audit: 0 });
    expect(await to.meta.audit(1_000)).toEqual(trail);
    expect(await to.meta.settingsHistory("identity", 10)).toHaveLength(3);
  });

  test("leave a registry that is not empty alone, unless told to replace it", async () => {
    const from = await furnished();
    const backup = readBack(await exported(from));
    await from.put("identity", "host009:5004");
    await from.operations.putService("orders", definitionSchema.parse({}), ACTOR);
    await from.settings.put("identity", { COUNT: 4 }, undefined, ACTOR);
    await from.ports.release("identity", ACTOR);
    await from.ports.reserve("orders", ACTOR);
    const state = from.registry.state();
    const refusal: unknown = await imports(from, backup).catch((error: unknown) => error);
    expect(errorCode(refusal)).toBe("conflict");
    expect(String(refusal)).toContain("3 services, 3 instances");
    expect(String(refusal)).toContain("replace=true");
    const would = await imports(from, backup, { dryRun: true });
    expect(would).toMatchObject({
      dryRun: true,
      changed: true,
      services: { total: 2, added: 0, changed: 0, removed: 1 },
      instances: { total: 2, removed: 1 },
      settings: { total: 1, changed: 1 },
      ports: { total: 1, added: 1, removed: 1 },
    });
    expect(from.registry.state()).toBe(state);
    const did = await imports(from, backup, { replace: true });
    expect(did).toMatchObject({ dryRun: false, services: would.services, instances: would.instances });
    expect(did.generation).toBeGreaterThan(state.generation);
    expect([...from.registry.state().instances.keys()].sort()).toEqual(["billing/host002", "identity/host001:5004"]);
    expect(await from.meta.ports()).toEqual([{ service: "identity", port: 5000 }]);
    expect((await from.registry.settings("identity")).values).toEqual({ COUNT: 3 });
    // what was said meanwhile stays in the history, and nothing is there twice
    expect((await from.meta.settingsHistory("identity", 10)).map(({ values }) => values.COUNT)).toEqual([4, 3, 2, 1]);
  });

  test("stay within a realm, unless told otherwise", async () => {
    const backup = readBack(await exported(await furnished()));
    const other = { ...backup, header: { ...backup.header, realm: "prod" } };
    const to = await newWorld();
    const refusal: unknown = await imports(to, other, { replace: true }).catch((error: unknown) => error);
    expect([errorCode(refusal), String(refusal)]).toEqual(["conflict", expect.stringContaining("of the realm prod")]);
    expect(await imports(to, other, { forceRealm: true })).toMatchObject({ changed: true, realm: "prod" });
  });

  test("that break off leave what was there, and are repeated", async () => {
    const backup = readBack(await exported(await furnished()));
    let restores = 0;
    const to = await newWorld({
      stores: ({ live, meta }) => {
        const failing = new Proxy(live, {
          get(target, key) {
            if (key === "restore" && (restores += 1) === 1)
              return () => Promise.reject(new Error("the disk went away"));
            const value: unknown = Reflect.get(target, key, target);
            return typeof value === "function" ? value.bind(target) : value;
          },
        });
        return { live: failing, meta };
      },
    });
    const before = to.registry.state();
    expect(imports(to, backup)).rejects.toThrow("went away");
    await to.pass(0);
    expect(to.registry.state()).toBe(before);
    expect(await to.meta.ports()).toEqual([]);
    expect(await imports(to, backup)).toMatchObject({ changed: true, audit: 0 });
    expect(to.registry.state().instances.size).toBe(2);
    expect(await to.meta.settingsHistory("identity", 10)).toHaveLength(3);
  });

  test("repair a realm whose metadata is lost, though its live half says the same", async () => {
    const world = await furnished();
    const backup = readBack(await exported(world));
    let lost = true;
    const definition = world.meta.definition.bind(world.meta);
    const settings = world.meta.settings.bind(world.meta);
    const gone = async (): Promise<never> => {
      throw new Fault({ code: "meta_missing", message: "that version does not exist" });
    };
    const versions = world.live.state().definitions;
    world.meta.definition = (service, version) =>
      lost && versions.get(service) === version ? gone() : definition(service, version);
    world.meta.settings = (...which) => (lost ? gone() : settings(...which));
    expect(await imports(world, backup, { dryRun: true })).toMatchObject({
      changed: true,
      services: { total: 2, added: 0, changed: 2, removed: 0 },
      settings: { total: 1, changed: 1 },
    });
    await imports(world, backup, { replace: true });
    const now = world.live.state().definitions;
    expect([...versions].filter(([service, version]) => now.get(service) === version)).toEqual([]);
    lost = false;
    expect((await world.registry.definition("identity"))?.definition).toMatchObject({ retries: 5 });
  });

  test("give agents without a lease their grace, then let their instances expire", async () => {
    const backup = readBack(await exported(await furnished()));
    const to = await newWorld();
    await imports(to, backup);
    expect(to.agents.statuses().map(({ host, connected }) => [host, connected])).toEqual([["host001", false]]);
    await to.pass(29_000);
    expect(to.registry.state().instances.has("identity/host001:5004")).toBe(true);
    await to.pass(2_000);
    expect([...to.registry.state().instances.keys()]).toEqual(["billing/host002"]);
    expect(to.registry.state().removed.get("identity/host001:5004")?.reason).toBe("expired");
  });
});
