import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { errorCode } from "../core/lib/errors.ts";
import { defaultDefinition, definitionSchema } from "../core/model/service.ts";
import { ACTOR, createWorld, type World } from "./fixture.ts";

let world: World;
beforeEach(async () => {
  world = await createWorld();
});
afterEach(async () => {
  await world.dispose();
});

const definition = (more: object) => definitionSchema.parse(more);
const current = () => world.registry.state().services.get("identity");
const codeOf = async (promise: Promise<unknown>): Promise<string | undefined> =>
  promise.then(
    () => undefined,
    (error: unknown) => errorCode(error) ?? String(error),
  );

describe("a definition", () => {
  test("is new once, then changed or the same", async () => {
    const put = (owner: string) => world.operations.putService("identity", definition({ owner }), ACTOR);
    expect(await put("core")).toMatchObject({ created: true, changed: true, revision: 1 });
    expect(await put("core")).toMatchObject({ created: false, changed: false, revision: 1 });
    expect(await put("money")).toMatchObject({ created: false, changed: true, revision: 2 });
  });

  test("published by the service follows it, except where an operator edited", async () => {
    const publish = (next: object) => world.operations.publishService("identity", definition(next), ACTOR);
    expect(await publish({ owner: "core", retries: 1 })).toMatchObject({ created: true });
    expect(await publish({ owner: "core", retries: 1 })).toMatchObject({ changed: false });
    await world.operations.putService("identity", definition({ owner: "core", retries: 7 }), ACTOR);
    expect(await publish({ owner: "core", retries: 2, description: "who is who" })).toMatchObject({ changed: true });
    expect(current()).toMatchObject({ retries: 7, description: "who is who" });
    expect(await publish({ owner: "money", retries: 2, description: "who is who" })).toMatchObject({ changed: true });
    expect(current()).toMatchObject({ retries: 7, owner: "money" });
  });

  test("put by many at once ends as one of them, every version counted", async () => {
    const owners = ["a", "b", "c", "d", "e"];
    await Promise.all(owners.map((owner) => world.operations.putService("identity", definition({ owner }), ACTOR)));
    expect(current()?.owner).toBe("e");
    expect(world.registry.state().revision).toBe(5);
  });

  test("may not take the loopback port of another service, bound or reserved", async () => {
    const tcp = (localPort: number) => definition({ protocol: "tcp", localPort });
    const { port } = await world.ports.reserve("billing", ACTOR);
    await world.operations.putService("redis", tcp(6379), ACTOR);
    expect(await codeOf(world.operations.putService("other", tcp(6379), ACTOR))).toBe("conflict");
    expect(await codeOf(world.operations.putService("other", tcp(port), ACTOR))).toBe("conflict");
    expect(await codeOf(world.operations.putService("redis", { ...tcp(6379), owner: "core" }, ACTOR))).toBeUndefined();
    await world.operations.putService("early", tcp(5001), ACTOR);
    expect((await world.ports.reserve("third", ACTOR)).port).toBe(5002);
  });
});

describe("an instance", () => {
  test("brings the definition back when somebody deletes the service on the way", async () => {
    await world.dispose();
    let deletions = 0;
    world = await createWorld({
      stores: ({ live, meta }) => {
        const update = live.updateInstance.bind(live);
        live.updateInstance = async (...write) => {
          if ((deletions += 1) <= 2) await live.deleteService("identity", { force: true });
          return update(...write);
        };
        return { live, meta };
      },
    });
    expect(await world.put("identity", "a")).toMatchObject({ created: true });
    expect(current()).toEqual(defaultDefinition);
  });

  test("of an unknown service brings its default definition", async () => {
    expect(await world.put("identity", "a")).toMatchObject({ created: true, changed: true });
    expect(current()).toEqual(defaultDefinition);
  });

  test("put without enabled keeps the operator's word, with enabled changes it", async () => {
    await world.put("identity", "a");
    await world.operations.patchInstance("identity", "a", { enabled: false }, ACTOR);
    await world.put("identity", "a", { weight: 5 });
    expect(world.registry.state().instances.get("identity/a")).toMatchObject({ enabled: false, weight: 5 });
    await world.operations.putInstance("identity", "a", { port: 5000, enabled: true }, ACTOR);
    expect(world.registry.state().instances.get("identity/a")).toMatchObject({ enabled: true, weight: 100 });
  });

  test("patched keeps what the patch leaves out", async () => {
    await world.put("identity", "a", { weight: 5, agent: "a" });
    const patched = await world.operations.patchInstance("identity", "a", { healthy: true, draining: true }, ACTOR);
    expect(patched).toMatchObject({ changed: true, created: false });
    expect(world.registry.state().instances.get("identity/a")).toMatchObject({
      weight: 5,
      agent: "a",
      healthy: true,
      draining: true,
    });
    const again = await world.operations.patchInstance("identity", "a", { healthy: true }, ACTOR);
    expect(again).toMatchObject({ changed: false });
    await world.operations.patchInstance("identity", "a", { healthy: null }, ACTOR);
    expect(world.registry.state().instances.get("identity/a")?.healthy).toBeNull();
  });

  test("that is unknown cannot be patched; one that is away has its operator's intent alone", async () => {
    await world.operations.putService("identity", defaultDefinition, ACTOR);
    const patch = (body: object) => world.operations.patchInstance("identity", "a", body, ACTOR);
    expect(await codeOf(patch({ enabled: false }))).toBe("not_found");
    await world.operations.putInstance("identity", "a", { port: 5000, enabled: false, agent: "a" }, ACTOR);
    await world.operations.deleteInstance("identity", "a", "a", ACTOR);
    expect(await codeOf(patch({ weight: 1 }))).toBe("not_found");
    expect(await patch({ enabled: true })).toMatchObject({ changed: true });
    expect(await codeOf(patch({ enabled: true }))).toBe("not_found");
  });

  test("removed by its agent keeps the intent, by an operator it does not", async () => {
    const disabled = { port: 5000, enabled: false, agent: "a" };
    await world.operations.putInstance("identity", "a", disabled, ACTOR);
    expect(await world.operations.deleteInstance("identity", "a", "a", ACTOR)).toMatchObject({ changed: true });
    expect(await world.operations.deleteInstance("identity", "a", "a", ACTOR)).toMatchObject({ changed: false });
    await world.put("identity", "a", { agent: "a" });
    expect(world.registry.state().instances.get("identity/a")?.enabled).toBe(false);
    await world.operations.deleteInstance("identity", "a", undefined, ACTOR);
    await world.put("identity", "a", { agent: "a" });
    expect(world.registry.state().instances.get("identity/a")?.enabled).toBe(true);
  });

  test("of one agent is not another's to remove, nor one put by hand", async () => {
    await world.put("identity", "a", { agent: "a" });
    await world.put("identity", "b");
    expect(await codeOf(world.operations.deleteInstance("identity", "a", "b", ACTOR))).toBe("conflict");
    expect(await codeOf(world.operations.deleteInstance("identity", "b", "b", ACTOR))).toBe("conflict");
    expect(world.registry.state().instances.size).toBe(2);
  });
});

describe("settings", () => {
  const put = (values: Record<string, number>, expected?: number) =>
    world.settings.put("identity", values, expected, ACTOR);

  test("are new once, the same without a version, and checked against what the writer saw", async () => {
    expect(await put({ A: 1 })).toMatchObject({ created: true, changed: true, version: 1 });
    expect(await put({ A: 1 })).toMatchObject({ created: false, changed: false, version: 1 });
    expect(await put({ A: 2 }, 1)).toMatchObject({ created: false, changed: true, version: 2 });
    expect(await codeOf(put({ A: 3 }, 1))).toBe("stale");
    expect(await world.registry.settings("identity")).toEqual({ service: "identity", version: 2, values: { A: 2 } });
  });

  test("written at once from the same version: one wins, the others are stale", async () => {
    await put({ A: 0 });
    const codes = await Promise.all([1, 2, 3].map((value) => codeOf(put({ A: value }, 1))));
    expect(codes).toEqual([undefined, "stale", "stale"]);
  });

  test("deleted are empty, and their history stays", async () => {
    await put({ A: 1 });
    expect(await world.settings.delete("identity", undefined, ACTOR)).toMatchObject({ version: 2 });
    expect(await world.settings.delete("identity", undefined, ACTOR)).toMatchObject({ changed: false });
    expect((await world.meta.settingsHistory("identity", 9)).map(({ values }) => values)).toEqual([{}, { A: 1 }]);
  });
});

describe("the audit trail", () => {
  test("has every write that changed something, with who, why, before and after", async () => {
    const actor = { who: "ann", from: "10.0.0.9", reason: "because" };
    await world.operations.putService("identity", definition({ owner: "core" }), actor);
    await world.operations.putInstance("identity", "a", { port: 5000 }, actor);
    await world.operations.putInstance("identity", "a", { port: 5000 }, actor);
    await world.operations.patchInstance("identity", "a", { enabled: false }, actor);
    await world.operations.deleteInstance("identity", "a", undefined, actor);
    await world.settings.put("identity", { A: 1 }, undefined, actor);
    await world.settings.delete("identity", undefined, actor);
    await world.ports.reserve("identity", actor);
    await world.ports.reserve("identity", actor);
    await world.ports.release("identity", actor);
    await world.operations.deleteService("identity", false, actor);
    const entries = [...(await world.meta.audit(100))].reverse();
    expect(entries.map(({ kind }) => kind)).toEqual([
      "service.put",
      "instance.put",
      "instance.patch",
      "instance.delete",
      "settings.put",
      "settings.delete",
      "port.reserve",
      "port.release",
      "service.delete",
    ]);
    expect(entries[2]).toMatchObject({
      at: new Date(world.clock.now()).toISOString(),
      who: "ann",
      from: "10.0.0.9",
      reason: "because",
      target: "identity/a",
      before: { port: 5000, enabled: true },
      after: { port: 5000, enabled: false },
    });
    expect(entries[3]).toMatchObject({ before: { enabled: false }, after: null });
    expect(entries[4]).toMatchObject({ target: "identity", before: {}, after: { A: 1 } });
  });

  test("that cannot be written does not fail the write", async () => {
    await world.dispose();
    world = await createWorld({
      stores: ({ live, meta }) => {
        meta.addAudit = () => Promise.reject(new Error("the table is away"));
        return { live, meta };
      },
    });
    expect(await world.put("identity", "a")).toMatchObject({ changed: true });
  });
});
