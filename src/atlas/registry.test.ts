import { afterEach, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { registrationFromPut } from "../core/model/instance.ts";
import type { LiveChange } from "../core/registry/live-store.ts";
import { errorCode, Fault } from "../core/lib/errors.ts";
import { defaultDefinition } from "../core/model/service.ts";
import type { Delta } from "../core/model/snapshot.ts";
import { ACTOR, createWorld, settle, type World } from "./fixture.ts";

const worlds: World[] = [];
afterEach(async () => {
  for (const world of worlds.splice(0)) await world.dispose();
});

/** A world whose metadata cannot be read while `away` is true. */
async function worldWithSlowMetadata(): Promise<World & { away: boolean; reads: number }> {
  const control = { away: false, reads: 0 };
  const world = await createWorld({
    stores: ({ live, meta }) => {
      const read = meta.definition.bind(meta);
      meta.definition = async (service, version) => {
        control.reads += 1;
        if (control.away) throw new Fault({ code: "unavailable", message: "the table is away" });
        return read(service, version);
      };
      return { live, meta };
    },
  });
  worlds.push(world);
  return Object.assign(control, world);
}

const deltas = (world: World): Delta[] => {
  const seen: Delta[] = [];
  world.registry.on((event) => {
    if (event.kind === "delta") seen.push(event.delta);
  });
  return seen;
};

/** As another replica would: past this one's own knowledge of what it wrote. */
async function defineBehindItsBack(world: World, service: string, owner: string): Promise<void> {
  const definition = { ...defaultDefinition, owner };
  const version = await world.meta.addDefinition(service, { definition, published: undefined });
  await world.live.setDefinition(service, version, world.live.state().definitions.get(service));
}

describe("the registry", () => {
  test("publishes its own writes within the same turn, without reading them back", async () => {
    const world = await worldWithSlowMetadata();
    const seen = deltas(world);
    await world.operations.putService("identity", { ...defaultDefinition, owner: "core" }, ACTOR);
    expect(world.registry.state().services.get("identity")?.owner).toBe("core");
    expect(seen.map(({ services }) => services.put.identity?.owner)).toEqual(["core"]);
    expect(world.reads).toBe(0);
  });

  test("keeps the order of changes while a definition is being read", async () => {
    const world = await worldWithSlowMetadata();
    const seen = deltas(world);
    world.away = true;
    await defineBehindItsBack(world, "identity", "core");
    await world.put("identity", "a");
    await settle();
    expect(seen).toEqual([]);
    world.away = false;
    await world.pass(5_000);
    expect(seen.map(({ since, revision }) => [since, revision])).toEqual([
      [0, 1],
      [1, 2],
    ]);
    expect(world.registry.state().revision).toBe(2);
    expect(world.reads).toBeGreaterThan(0);
  });

  test("waits for a definition that cannot be read, is not ready meanwhile, and never takes the default", async () => {
    const world = await worldWithSlowMetadata();
    const seen = deltas(world);
    world.away = true;
    await defineBehindItsBack(world, "identity", "core");
    await world.pass(60_000);
    expect(world.registry.ready()).toBe(false);
    expect(world.registry.degraded()).toEqual(["the definition of identity cannot be read: the table is away"]);
    expect(world.registry.state()).toMatchObject({ revision: 0 });
    world.away = false;
    await world.pass(5_000);
    expect(world.registry.ready()).toBe(true);
    expect(world.registry.degraded()).toEqual([]);
    expect(seen[0]?.services.put.identity?.owner).toBe("core");
  });

  test("a number that no definition has is garbage: the one before stays, it is told, and nothing waits", async () => {
    const world = await worldWithSlowMetadata();
    await world.operations.putService("identity", { ...defaultDefinition, owner: "core" }, ACTOR);
    // as somebody's hand would, in ZooKeeper
    await world.live.setDefinition("identity", 999, 1);
    await world.put("identity", "a");
    await settle();
    expect(world.registry.state().services.get("identity")?.owner).toBe("core");
    expect([...world.registry.state().instances.keys()]).toEqual(["identity/a"]);
    expect([world.registry.ready(), world.registry.degraded()]).toEqual([
      true,
      [expect.stringContaining("version 999 of the definition of identity does not exist")],
    ]);
    await world.live.setDefinition("identity", 1, 999);
    await settle();
    expect(world.registry.degraded()).toEqual([]);
    // or by defining it anew
    await world.live.setDefinition("identity", 777, 1);
    await settle();
    await world.operations.putService("identity", { ...defaultDefinition, owner: "new" }, ACTOR);
    expect(world.registry.state().services.get("identity")?.owner).toBe("new");
    expect([world.registry.degraded(), world.live.state().definitions.get("identity")]).toEqual([[], 2]);
  });

  test("a service that a hand made of a number without a definition has the default, and can be defined", async () => {
    const world = await worldWithSlowMetadata();
    await world.live.setDefinition("identity", 5, undefined);
    await settle();
    expect(world.registry.state().services.get("identity")).toEqual(defaultDefinition);
    expect(world.registry.degraded()[0]).toContain("the default counts until identity is defined anew");
    await world.operations.putService("identity", { ...defaultDefinition, owner: "core" }, ACTOR);
    expect([world.registry.state().services.get("identity")?.owner, world.registry.degraded()]).toEqual(["core", []]);
  });

  test("a new generation ends the wait for a definition of the old one, which may be gone for good", async () => {
    const world = await worldWithSlowMetadata();
    const events: string[] = [];
    world.registry.on((event) => events.push(event.kind === "delta" ? `delta ${event.delta.revision}` : event.kind));
    world.away = true;
    await defineBehindItsBack(world, "identity", "core");
    await world.put("identity", "a");
    await world.pass(1_000);
    expect(world.registry.ready()).toBe(false);
    await world.live.restore({ definitions: new Map(), settings: new Map(), instances: [], away: [] });
    await settle();
    expect(world.registry.ready()).toBe(true);
    expect(world.registry.state()).toMatchObject({ generation: world.live.state().generation, services: new Map() });
    expect(events).toEqual(["reset"]);
    await world.pass(10_000);
    expect(events).toEqual(["reset"]);
  });

  test("a new generation that cannot be read yet is waited for, and what follows keeps its place behind it", async () => {
    const world = await worldWithSlowMetadata();
    const events: string[] = [];
    await world.operations.putService("identity", { ...defaultDefinition, owner: "core" }, ACTOR);
    world.registry.on((event) => events.push(event.kind === "delta" ? `since ${event.delta.since}` : event.kind));
    world.away = true;
    const { definitions } = world.live.state();
    await world.live.restore({ definitions, settings: new Map(), instances: [], away: [] });
    const { revision } = world.live.state();
    await world.put("identity", "a");
    await world.pass(1_000);
    expect([events, world.registry.ready()]).toEqual([[], false]);
    world.away = false;
    await world.pass(5_000);
    expect([events, world.registry.ready()]).toEqual([["reset", `since ${revision}`], true]);
    expect(world.registry.state().services.get("identity")?.owner).toBe("core");
  });

  test("an instance put by hand, of a service that nobody defined, is sent with the default definition while it is there", async () => {
    const tell: ((change: LiveChange) => void)[] = [];
    const world = await createWorld({
      stores: ({ live, meta }) => {
        live.onChange = (listener) => {
          tell.push(listener);
          return () => undefined;
        };
        return { live, meta };
      },
    });
    worlds.push(world);
    const seen = deltas(world);
    let state = world.live.state();
    const change = (
      put: readonly string[],
      gone: readonly string[],
      definitions: ReadonlyMap<string, number> = state.definitions,
    ): void => {
      const made = put.map((name) => ({ ...registrationFromPut("hand", name, { port: 5000 }), enabled: true }));
      const instances = new Map([...state.instances, ...made.map((instance) => [instance.id, instance] as const)]);
      for (const name of gone) instances.delete(`hand/${name}`);
      const since = state.revision;
      const was = state.definitions;
      state = { ...state, revision: since + 1, instances, definitions };
      tell[0]?.({
        kind: "change",
        state,
        since,
        definitions: {
          put: new Map([...definitions].filter(([service, version]) => was.get(service) !== version)),
          delete: [...was.keys()].filter((service) => !definitions.has(service)),
        },
        instances: { put: made, delete: gone.map((name) => ({ id: `hand/${name}` })) },
      });
    };
    const version = await world.meta.addDefinition("hand", {
      definition: { ...defaultDefinition, owner: "core" },
      published: undefined,
    });
    change(["x"], []);
    change(["y"], []);
    change([], [], new Map([["hand", version]]));
    await settle();
    change([], [], new Map());
    change([], ["x"]);
    change([], ["y"]);
    expect(seen.map(({ services }) => [services.put.hand?.owner, services.delete])).toEqual([
      ["", []],
      [undefined, []],
      ["core", []],
      ["", []],
      [undefined, []],
      [undefined, ["hand"]],
    ]);
    expect(world.registry.snapshot().services).toEqual({});
  });

  test("a store whose definitions cannot be read is not opened, and not kept from anybody", async () => {
    const directory = await mkdtemp(join(tmpdir(), "smartstack-atlas-"));
    const world = await createWorld({ directory });
    await world.put("identity", "a");
    await world.dispose();
    const broken = createWorld({
      directory,
      stores: ({ live, meta }) => {
        meta.definition = () => Promise.reject(new Fault({ code: "meta_missing", message: "it is gone" }));
        meta.newestDefinition = () => Promise.resolve(undefined);
        return { live, meta };
      },
    });
    expect(errorCode(await broken.catch((error: unknown) => error))).toBe("meta_missing");
    await (await createWorld({ directory })).dispose();
    await rm(directory, { recursive: true });
  });

  test("a start and a new generation take a number without a definition as garbage, too: what is stored last counts", async () => {
    const directory = await mkdtemp(join(tmpdir(), "smartstack-atlas-"));
    const first = await createWorld({ directory });
    for (const owner of ["old", "core"])
      await first.operations.putService("identity", { ...defaultDefinition, owner }, ACTOR);
    await first.live.setDefinition("identity", 999, 2);
    await first.live.setDefinition("handmade", 7, undefined);
    await first.dispose();
    const world = await createWorld({ directory });
    worlds.push(world);
    const told = [
      expect.stringContaining("version 999 of the definition of identity does not exist; the one before counts"),
      expect.stringContaining("version 7 of the definition of handmade does not exist; the default counts"),
    ];
    const shows = () => {
      const { services } = world.registry.state();
      return [services.get("identity")?.owner, services.get("handmade"), world.registry.degraded()];
    };
    expect(shows()).toEqual(["core", defaultDefinition, expect.arrayContaining(told)]);
    const { definitions, generation } = world.live.state();
    await world.live.restore({ definitions, settings: new Map(), instances: [], away: [] });
    await settle();
    expect(world.registry.state().generation).toBeGreaterThan(generation);
    expect(world.registry.ready()).toBe(true);
    expect(shows()).toEqual(["core", defaultDefinition, expect.arrayContaining(told)]);
    await rm(directory, { recursive: true });
  });

  test("a new generation of which no definition is there at all is waited for: that is a lost table, no mistake", async () => {
    let lost = false;
    const world = await createWorld({
      stores: ({ live, meta }) => {
        const read = meta.definition.bind(meta);
        meta.definition = async (service, version) => {
          if (lost) throw new Fault({ code: "meta_missing", message: "it is gone" });
          return read(service, version);
        };
        meta.newestDefinition = () => Promise.resolve(undefined);
        return { live, meta };
      },
    });
    worlds.push(world);
    await world.operations.putService("identity", { ...defaultDefinition, owner: "core" }, ACTOR);
    const { definitions, generation } = world.live.state();
    lost = true;
    await world.live.restore({ definitions, settings: new Map(), instances: [], away: [] });
    await world.pass(5_000);
    expect([world.registry.ready(), world.registry.state().generation]).toEqual([false, generation]);
    expect(world.registry.state().services.get("identity")?.owner).toBe("core");
    lost = false;
    await world.pass(5_000);
    expect([world.registry.ready(), world.registry.state().generation > generation]).toEqual([true, true]);
  });

  test("an old definition is let go when a newer one counts", async () => {
    const world = await worldWithSlowMetadata();
    for (const owner of ["a", "b", "c"])
      await world.operations.putService("identity", { ...defaultDefinition, owner }, ACTOR);
    await world.operations.deleteService("identity", false, ACTOR);
    await world.operations.putService("identity", { ...defaultDefinition, owner: "d" }, ACTOR);
    expect(await world.registry.definition("identity")).toMatchObject({ version: 4, definition: { owner: "d" } });
    expect(world.registry.snapshot().services.identity?.owner).toBe("d");
  });

  test("settings that were read or set are there while metadata is away, after a start too", async () => {
    let away = false;
    const directory = await mkdtemp(join(tmpdir(), "smartstack-atlas-"));
    const stores: NonNullable<Parameters<typeof createWorld>[0]>["stores"] = ({ live, meta }) => {
      const read = meta.settings.bind(meta);
      meta.settings = async (service, version) => {
        if (away) throw new Fault({ code: "unavailable", message: "the table is away" });
        return read(service, version);
      };
      return { live, meta };
    };
    const first = await createWorld({ directory, stores });
    await first.settings.put("identity", { A: 1 }, undefined, ACTOR);
    await settle();
    away = true;
    expect(await first.registry.settings("identity")).toMatchObject({ version: 1, values: { A: 1 } });
    expect(await first.registry.settings("billing")).toMatchObject({ version: 0, values: {} });
    await first.dispose();
    away = false;
    const second = await createWorld({ directory, stores });
    await settle();
    away = true;
    expect(await second.registry.settings("identity")).toMatchObject({ version: 1, values: { A: 1 } });
    await second.dispose();
    await rm(directory, { recursive: true });
  });

  test("the snapshot is made once per revision", async () => {
    const world = await worldWithSlowMetadata();
    await world.put("identity", "a");
    const first = world.registry.snapshot();
    expect(world.registry.snapshot()).toBe(first);
    await world.settings.put("identity", { A: 1 }, undefined, ACTOR);
    expect(world.registry.snapshot()).toBe(first);
    await world.put("identity", "b");
    expect(world.registry.snapshot()).not.toBe(first);
  });
});
