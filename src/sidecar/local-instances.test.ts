import { describe, expect, test } from "bun:test";
import { type AtlasClient, AtlasProblem } from "../core/api/atlas-client.ts";
import { fakeClock } from "../core/lib/clock.ts";
import { errorCode, Fault } from "../core/lib/errors.ts";
import { silentLogger } from "../core/lib/logger.ts";
import { putInstanceSchema, registrationFromPut } from "../core/model/instance.ts";
import { type LocalWritten, putLocalSchema } from "../core/model/local.ts";
import { definitionSchema } from "../core/model/service.ts";
import { emptySnapshot, type Snapshot } from "../core/model/snapshot.ts";
import { instanceOf, snapshotOf } from "./fixture.ts";
import { HostState } from "./host-state.ts";
import { LocalInstances } from "./local-instances.ts";
import { createSidecarMetrics } from "./metrics.ts";

const ID = "identity/here:5000";

/** Local instances on an Atlas that is a few lines of memory, and that the host hears only when the test says so. */
function setup() {
  const clock = fakeClock();
  const state = new HostState("local", "here");
  const lines: string[] = [];
  let atlas: Snapshot = { ...emptySnapshot("local"), generation: 1, revision: 1 };
  let up = true;
  let alive = true;
  let probes = 0;
  let changes = 0;

  const write = (method: string, path: string, body: unknown): void => {
    const [, service = "", instance] = /^\/v1\/services\/([^/?]+)(?:\/instances\/([^?]+))?/.exec(path) ?? [];
    const name = decodeURIComponent(instance ?? "");
    const id = `${service}/${name}`;
    const others = atlas.instances.filter((other) => other.id !== id);
    const known = atlas.instances.find((other) => other.id === id);
    const revision = atlas.revision + 1;
    if (instance === undefined) {
      atlas = { ...atlas, revision, services: { ...atlas.services, [service]: definitionSchema.parse(body) } };
    } else if (method === "PUT") {
      const registration = registrationFromPut(service, name, putInstanceSchema.parse(body));
      atlas = { ...atlas, revision, instances: [...others, { enabled: known?.enabled ?? true, ...registration }] };
    } else if (known === undefined) {
      throw new AtlasProblem(404, { code: "not_found", detail: "no such instance" }, path);
    } else if (method === "PATCH") {
      atlas = { ...atlas, revision, instances: [...others, { ...known, ...(body as object) }] };
    } else atlas = { ...atlas, revision, instances: others };
  };
  const client: AtlasClient = {
    async request(path, request) {
      if (!up) throw new Fault({ code: "unreachable", message: "could not reach Atlas" });
      const method = request.method ?? "GET";
      lines.push(`${method} ${path.replace("/v1/services/identity", "S").replace("here%3A5000", "I")}`);
      write(method, path, request.body);
      const waited = path.includes("wait=applied") ? { applied: 1, total: 1 } : {};
      return request.schema.parse({ generation: atlas.generation, revision: atlas.revision, changed: true, ...waited });
    },
    fetch: () => Promise.reject(new Error("not used")),
  };
  const locals = new LocalInstances({
    state,
    host: { host: "here", address: "10.0.0.1", zone: "" },
    client,
    clock,
    logger: silentLogger,
    metrics: createSidecarMetrics(),
    probe: async () => {
      probes += 1;
      return { passed: alive, detail: alive ? "check 200, 1 ms" : "check failed" };
    },
    random: () => 0.5,
    connected: () => up,
    changed: () => {
      changes += 1;
    },
  });
  /** What `agent.ts` does when the registry speaks. */
  const hear = (snapshot: Snapshot = atlas): void => {
    const previous = state.view.snapshot;
    state.take(snapshot, undefined, clock.now());
    locals.take(snapshot, previous);
  };
  const finish = async <T>(promise: Promise<T>): Promise<T> => {
    await clock.advance(0);
    await clock.advance(0);
    return promise;
  };
  return {
    clock,
    state,
    locals,
    lines,
    hear,
    finish,
    put: (more: object = {}): Promise<LocalWritten> =>
      finish(locals.put("identity", "here:5000", putLocalSchema.parse({ port: 5000, ...more }))),
    atlas: () => atlas,
    setAtlas: (next: Snapshot) => {
      atlas = next;
    },
    power: (value: boolean) => {
      up = value;
    },
    live: (value: boolean) => {
      alive = value;
    },
    probes: () => probes,
    changes: () => changes,
    routed: () => state.desired().instances.find(({ id }) => id === ID),
  };
}

describe("local instances", () => {
  test("one is checked at once and reaches Atlas healthy, in one write, after its definition", async () => {
    const { put, lines, atlas, routed } = setup();
    expect(await put({ definition: { owner: "core" } })).toEqual({ generation: 1, revision: 3, registered: true });
    expect(lines).toEqual(["PUT S?publish=true", "PUT S/instances/I"]);
    expect(atlas().instances).toEqual([instanceOf(ID, { address: "10.0.0.1", healthy: true })]);
    expect(routed()?.healthy).toBe(true);
  });

  test("while Atlas is away it is routed here, and told to Atlas when that is back", async () => {
    const { put, lines, power, routed, clock, locals } = setup();
    power(false);
    expect(await put()).toMatchObject({ registered: false, problem: expect.any(String) });
    expect(routed()).toMatchObject({ address: "10.0.0.1", port: 5000, healthy: true });
    power(true);
    locals.connected();
    await clock.advance(0);
    expect(lines).toEqual(["PUT S/instances/I"]);
  });

  test("a registry that lost its state is told again", async () => {
    const { put, lines, hear, setAtlas, atlas, clock } = setup();
    await put();
    hear();
    setAtlas({ ...emptySnapshot("local"), generation: 2, revision: 1 });
    hear();
    await clock.advance(0);
    expect(lines).toEqual(["PUT S/instances/I", "PUT S/instances/I"]);
    expect(atlas().instances[0]).toMatchObject({ id: ID, agent: "here", healthy: true });
  });

  test("a registry that went back within its generation is told again as well", async () => {
    const { put, lines, hear, setAtlas, clock } = setup();
    await put();
    await put({ weight: 9 });
    hear();
    setAtlas({ ...emptySnapshot("local"), generation: 1, revision: 1 });
    hear();
    await clock.advance(0);
    expect(lines.length).toBe(3);
  });

  test("failing checks are published after fall, passing ones after rise", async () => {
    const { put, hear, live, clock, atlas, lines } = setup();
    await put();
    hear();
    live(false);
    await clock.advance(4_000);
    expect(atlas().instances[0]?.healthy).toBe(true);
    await clock.advance(2_000);
    expect(atlas().instances[0]?.healthy).toBe(false);
    hear();
    live(true);
    await clock.advance(2_000);
    expect(atlas().instances[0]?.healthy).toBe(false);
    await clock.advance(2_000);
    expect(atlas().instances[0]?.healthy).toBe(true);
    expect(lines.filter((line) => line.startsWith("PATCH")).length).toBe(2);
  });

  test("silence alone does not remove an instance, silence and failing checks do", async () => {
    const { put, hear, live, clock, atlas, state } = setup();
    await put({ ttlMs: 10_000 });
    hear();
    await clock.advance(60_000);
    expect(atlas().instances.length).toBe(1);
    live(false);
    await clock.advance(6_000);
    expect(atlas().instances.length).toBe(0);
    hear();
    expect(state.locals.size).toBe(0);
  });

  test("failing checks alone do not remove an instance that speaks", async () => {
    const { put, hear, live, clock, atlas } = setup();
    await put({ ttlMs: 10_000 });
    hear();
    live(false);
    for (let time = 0; time < 12; time += 1) {
      await clock.advance(5_000);
      await put({ ttlMs: 10_000 });
      hear();
    }
    expect(atlas().instances[0]?.healthy).toBe(false);
  });

  test("a drain takes it out here at once, and answers when every agent applied it", async () => {
    const { put, hear, finish, locals, lines, routed } = setup();
    await put();
    hear();
    const draining = locals.drain("identity", "here:5000", 10_000);
    expect(routed()?.draining).toBe(true);
    expect(await finish(draining)).toEqual({ generation: 1, revision: 3, registered: true, applied: 1, total: 1 });
    expect(lines.at(-1)).toBe("PATCH S/instances/I?agent=here&wait=applied&timeout=10000ms");
  });

  test("a drain without Atlas is not confirmed, and stands here", async () => {
    const { put, hear, locals, power, routed, clock } = setup();
    await put();
    hear();
    power(false);
    const outcome = locals.drain("identity", "here:5000", 1_000).catch((error: unknown) => error);
    await clock.advance(1_000);
    expect(errorCode(await outcome)).toBe("not_applied");
    expect(routed()?.draining).toBe(true);
  });

  test("deregistering drains first, deletes, and forgets when Atlas agrees", async () => {
    const { put, hear, finish, locals, lines, state, routed } = setup();
    await put();
    hear();
    expect(await finish(locals.remove("identity", "here:5000"))).toMatchObject({ registered: true });
    expect(lines.slice(1)).toEqual([
      "PATCH S/instances/I?agent=here&wait=applied&timeout=10000ms",
      "DELETE S/instances/I?agent=here",
    ]);
    expect(routed()).toBeUndefined();
    expect(state.locals.size).toBe(1);
    hear();
    expect(state.locals.size).toBe(0);
  });

  test("after a drain deregistering does not drain again", async () => {
    const { put, hear, finish, locals, lines } = setup();
    await put();
    hear();
    await finish(locals.drain("identity", "here:5000", 10_000));
    await finish(locals.remove("identity", "here:5000"));
    expect(lines.filter((line) => line.startsWith("PATCH")).length).toBe(1);
  });

  test("deregistering while Atlas is away is done here, and there when it is back", async () => {
    const { put, hear, finish, locals, lines, power, routed, clock } = setup();
    await put();
    hear();
    power(false);
    expect(await finish(locals.remove("identity", "here:5000"))).toMatchObject({ registered: false });
    expect(routed()).toBeUndefined();
    power(true);
    locals.connected();
    await clock.advance(0);
    expect(lines.at(-1)).toBe("DELETE S/instances/I?agent=here");
  });

  test("what Atlas has as ours and nobody told us about is taken over, checked, and expires when it is dead", async () => {
    const { hear, setAtlas, state, live, clock, lines } = setup();
    live(false);
    setAtlas(snapshotOf(5, [instanceOf(ID, { address: "10.0.0.1" }), instanceOf("identity/there:5000")]));
    hear();
    expect([...state.locals.keys()]).toEqual([ID]);
    await clock.advance(40_000);
    expect(lines).toContain("DELETE S/instances/I?agent=here&expired=true");
  });

  test("one that fell silent goes although its port answers, when another instance took the port over", async () => {
    const { put, hear, locals, finish, clock, routed, lines } = setup();
    await put({ ttlMs: 10_000 });
    hear();
    await clock.advance(12_000);
    // silent, but its checks pass and nobody else is there: it may only have trouble with the socket
    expect(routed()?.healthy).toBe(true);
    await finish(locals.put("billing", "here:5000", putLocalSchema.parse({ port: 5000, ttlMs: 60_000 })));
    hear();
    await clock.advance(3_000);
    expect(routed()).toBeUndefined();
    expect(lines.at(-1)).toBe("DELETE S/instances/I?agent=here&expired=true");
  });

  test("two that share a port and both speak stay", async () => {
    const { put, hear, locals, finish, clock, routed } = setup();
    await put({ ttlMs: 60_000 });
    await finish(locals.put("billing", "here:5000", putLocalSchema.parse({ port: 5000, ttlMs: 60_000 })));
    hear();
    await clock.advance(50_000);
    expect(routed()?.healthy).toBe(true);
  });

  test("an instance that starts anew is proven anew", async () => {
    const { put, hear, live, clock, atlas } = setup();
    await put({ definition: {} });
    hear();
    live(false);
    await put({ definition: {} });
    expect(atlas().instances[0]?.healthy).toBe(false);
    live(true);
    await clock.advance(2_100);
    expect(atlas().instances[0]?.healthy).toBe(true);
  });

  test("who is not there can neither be drained nor deregistered", async () => {
    const { locals } = setup();
    expect(errorCode(await locals.drain("identity", "x", undefined).catch((error: unknown) => error))).toBe(
      "not_found",
    );
    expect(errorCode(await locals.remove("identity", "x").catch((error: unknown) => error))).toBe("not_found");
  });

  test("repetitions do not change what is routed", async () => {
    const { put, hear, changes } = setup();
    await put();
    hear();
    const before = changes();
    await put();
    expect(changes()).toBe(before);
  });

  test("stop leaves no timer", async () => {
    const { put, locals, clock } = setup();
    await put();
    await locals.stop();
    await clock.advance(0);
    expect(clock.pending).toBe(0);
  });
});
