// The sidecar as operators run it: the compiled binary with a real Atlas and a real HAProxy, under load.
import { describe, expect, test } from "bun:test";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { errorCode } from "../core/lib/errors.ts";
import { definitionSchema } from "../core/model/service.ts";
import { BINARY, eventually, scenario } from "./harness.ts";
import { backend, Connection, load } from "./haproxy-kit.ts";
import { answering, answeringOn, ready, sidecarCommand, startAtlas, startSidecar } from "./sidecar-kit.ts";

const identity = { "runscope-service": "identity" };
/** Checked often, so that tests need not wait. */
const quick = definitionSchema.parse({ healthcheck: { intervalMs: 200, timeoutMs: 200 } });

describe("local instances", () => {
  scenario("one that registers over the socket is routed, known to Atlas, healthy, and explained", async (world) => {
    const atlas = await startAtlas(world);
    const sidecar = await startSidecar(world, atlas, { flags: ["--stop-haproxy", "--zone", "eu-1"] });
    const one = backend(world, "one");
    expect(await sidecar.client.info()).toMatchObject({
      host: "host001",
      address: "127.0.0.1",
      realm: "local",
      router: `http://127.0.0.1:${sidecar.bind}`,
      atlas: { connected: true, url: atlas.url },
    });
    const written = await sidecar.client.put("identity", "host001:1", { port: one.port, definition: quick });
    expect(written).toMatchObject({ registered: true });
    await eventually("identity is routed", async () => expect(await answering(sidecar.bind)).toBe("one"));
    expect(await atlas.instances("identity")).toMatchObject([
      { instance: "host001:1", agent: "host001", healthy: true, zone: "eu-1", port: one.port },
    ]);
    // the new worker answers a moment before the sidecar has seen that the reload is over
    await eventually("it is explained", async () =>
      expect(await sidecar.why("identity")).toMatchObject({
        known: true,
        usable: 1,
        servers: [{ instance: "host001:1", haproxy: "UP", because: expect.stringMatching(/^check 200, \d+ ms$/) }],
      }),
    );
    const metrics = await (await fetch(`${sidecar.admin}/metrics`)).text();
    expect(metrics).toContain("smartstack_sidecar_local_instances 1");
    expect(metrics).toContain("haproxy_process_");
    await eventually("the access log has it", async () => {
      const lines = (await readFile(join(sidecar.stateDir, "access.log"), "utf8")).split("\n");
      const line = lines.find((text) => text.includes('"status":200')) ?? "";
      expect(JSON.parse(line)).toMatchObject({ service: "identity", instance: "host001:1", status: 200, path: "/" });
    });
  });

  scenario(
    "a drain holds at the instant it is confirmed, a deregistration drains first, and no request fails",
    async (world) => {
      const atlas = await startAtlas(world);
      const sidecar = await startSidecar(world, atlas, { flags: ["--stop-haproxy"] });
      const [one, two] = [backend(world, "one"), backend(world, "two")];
      await sidecar.client.put("identity", "host001:1", { port: one.port, definition: quick });
      await sidecar.client.put("identity", "host001:2", { port: two.port });
      await eventually("both are usable", async () => expect((await sidecar.why("identity")).usable).toBe(2));
      const traffic = load(sidecar.bind, identity);
      const connection = new Connection(sidecar.bind);
      world.defer(() => connection.close());

      expect(await sidecar.client.drain("identity", "host001:1", 10_000)).toMatchObject({ applied: 1, total: 1 });
      for (let request = 0; request < 100; request += 1) expect(await answeringOn(connection)).toBe("two");
      expect(await sidecar.client.deregister("identity", "host001:1")).toMatchObject({ registered: true });
      expect((await atlas.instances("identity")).map(({ instance }) => instance)).toEqual(["host001:2"]);

      await sidecar.client.put("identity", "host001:1", { port: one.port });
      await eventually("both are usable again", async () => expect((await sidecar.why("identity")).usable).toBe(2));
      expect(await sidecar.client.deregister("identity", "host001:2")).toMatchObject({ registered: true });
      for (let request = 0; request < 100; request += 1) expect(await answeringOn(connection)).toBe("one");
      expect((await traffic.stop()).failures).toEqual([]);
    },
  );

  scenario("one that is killed is unhealthy everywhere within its checks, and gone after its ttl", async (world) => {
    const atlas = await startAtlas(world);
    const sidecar = await startSidecar(world, atlas, { flags: ["--stop-haproxy"] });
    const [one, two] = [backend(world, "one"), backend(world, "two")];
    await sidecar.client.put("identity", "host001:1", { port: one.port, definition: quick, ttlMs: 3_000 });
    await sidecar.client.put("identity", "host001:2", { port: two.port, ttlMs: 3_000 });
    await eventually("both are usable", async () => expect((await sidecar.why("identity")).usable).toBe(2));
    one.stop();
    await eventually("Atlas knows", async () => {
      expect((await atlas.instances("identity")).map(({ healthy }) => healthy)).toEqual([false, true]);
    });
    await eventually("it is gone, the one that answers is not", async () => {
      expect((await atlas.instances("identity")).map(({ instance }) => instance)).toEqual(["host001:2"]);
    });
  });

  scenario("registered while Atlas is down: routed at once, and in Atlas as soon as that is back", async (world) => {
    const atlas = await startAtlas(world);
    const sidecar = await startSidecar(world, atlas, { flags: ["--stop-haproxy"] });
    atlas.process.signal("SIGKILL");
    await atlas.process.exited;
    const one = backend(world, "one");
    const written = await sidecar.client.put("identity", "host001:1", { port: one.port, definition: quick });
    expect(written.registered).toBe(false);
    await eventually("identity is routed", async () => expect(await answering(sidecar.bind)).toBe("one"));
    const again = await startAtlas(world, atlas);
    await eventually("Atlas has it", async () => {
      expect(await again.instances("identity")).toMatchObject([{ instance: "host001:1", healthy: true }]);
    });
  });

  scenario("a wiped Atlas is told of them again, and no request fails meanwhile", async (world) => {
    const atlas = await startAtlas(world);
    const sidecar = await startSidecar(world, atlas, { flags: ["--stop-haproxy"] });
    const one = backend(world, "one");
    await sidecar.client.put("identity", "host001:1", { port: one.port, definition: { ...quick, owner: "core" } });
    await eventually("identity is routed", () => answering(sidecar.bind));
    const traffic = load(sidecar.bind, identity);
    atlas.process.signal("SIGKILL");
    await atlas.process.exited;
    await rm(atlas.dataDir, { recursive: true });
    const wiped = await startAtlas(world, atlas);
    await eventually("it is registered again", async () => {
      expect(await wiped.instances("identity")).toMatchObject([{ instance: "host001:1", agent: "host001" }]);
    });
    expect((await traffic.stop()).failures).toEqual([]);
  });
});

describe("what operators write", () => {
  scenario("a disabled instance gets no request from the instant wait=applied returns", async (world) => {
    const atlas = await startAtlas(world);
    const sidecar = await startSidecar(world, atlas, { flags: ["--stop-haproxy"] });
    const instances = [backend(world, "one"), backend(world, "two")] as const;
    for (const { name, port } of instances) {
      await atlas.ask(`/v1/services/identity/instances/${name}`, "PUT", { port, address: "127.0.0.1" });
    }
    await eventually("both are usable", async () => expect((await sidecar.why("identity")).usable).toBe(2));
    const traffic = load(sidecar.bind, identity);
    const connections = Array.from({ length: 4 }, () => new Connection(sidecar.bind));
    for (let round = 0; round < 10; round += 1) {
      // warm, so that a worker of an earlier configuration would still serve them
      for (const connection of connections) await answeringOn(connection);
      const [out, left] = round % 2 === 0 ? (["one", "two"] as const) : (["two", "one"] as const);
      const path = `/v1/services/identity/instances/${out}`;
      expect(await atlas.ask(`${path}?wait=applied`, "PATCH", { enabled: false })).toMatchObject({
        applied: 1,
        total: 1,
      });
      for (let request = 0; request < 40; request += 1) {
        for (const connection of connections) expect(await answeringOn(connection)).toBe(left);
      }
      await atlas.ask(`${path}?wait=applied`, "PATCH", { enabled: true });
    }
    for (const connection of connections) connection.close();
    expect((await traffic.stop()).failures).toEqual([]);
    expect(await sidecar.why("identity")).toMatchObject({
      usable: 2,
      lastReload: { reasons: [expect.stringContaining("added")] },
    });
  });

  scenario("an operator-disabled instance stays out when it registers anew", async (world) => {
    const atlas = await startAtlas(world);
    const sidecar = await startSidecar(world, atlas, { flags: ["--stop-haproxy"] });
    const one = backend(world, "one");
    const path = "/v1/services/identity/instances/host001:1";
    await sidecar.client.put("identity", "host001:1", { port: one.port, definition: quick });
    await atlas.ask(`${path}?wait=applied`, "PATCH", { enabled: false });
    await sidecar.client.deregister("identity", "host001:1");
    await sidecar.client.put("identity", "host001:1", { port: one.port, definition: quick });
    expect(await atlas.instances("identity")).toMatchObject([{ enabled: false }]);
    expect(await sidecar.why("identity")).toMatchObject({ servers: [{ because: "disabled by an operator" }] });
  });
});

describe("what HAProxy refuses", () => {
  scenario("fails the write that waits, names host and reason, and leaves the rest alone", async (world) => {
    const atlas = await startAtlas(world);
    const sidecar = await startSidecar(world, atlas, { flags: ["--stop-haproxy"] });
    const one = backend(world, "one");
    const instances = "/v1/services/identity/instances";
    await atlas.ask(`${instances}/one`, "PUT", { port: one.port, address: "127.0.0.1" });
    const lost = { port: 5000, address: "no-such-host.invalid" };
    const refusal: unknown = await atlas
      .ask(`${instances}/two?wait=applied`, "PUT", lost)
      .catch((error: unknown) => error);
    expect(refusal).toMatchObject({
      code: "rejected",
      body: {
        rejected: [{ host: "host001", service: "identity", error: expect.stringContaining("does not resolve") }],
      },
    });
    expect(await answering(sidecar.bind)).toBe("one");
    expect((await sidecar.why("identity")).notes.join()).toContain("no-such-host.invalid");
    // it alone is left out: what is written about the others goes on
    expect(await atlas.ask(`${instances}/one?wait=applied`, "PATCH", { weight: 50 })).toMatchObject({ applied: 1 });
    expect(await atlas.ask("/v1/services/identity?wait=applied", "PUT", { owner: "core" })).toMatchObject({
      applied: 1,
    });
    expect(await atlas.ask(`${instances}/two?wait=applied`, "DELETE")).toMatchObject({ applied: 1, total: 1 });
  });
});

describe("without Atlas", () => {
  scenario(
    "traffic flows, the next sidecar adopts HAProxy, and a cold start routes from disk within 2 s",
    async (world) => {
      const atlas = await startAtlas(world);
      const sidecar = await startSidecar(world, atlas);
      const one = backend(world, "one");
      await atlas.ask("/v1/services/identity/instances/one", "PUT", { port: one.port, address: "127.0.0.1" });
      await eventually("identity is routed", () => answering(sidecar.bind));
      await eventually("it is on disk", async () => {
        expect(await readFile(join(sidecar.stateDir, "state.json"), "utf8")).toContain("identity/one");
      });
      const traffic = load(sidecar.bind, identity);
      atlas.process.signal("SIGKILL");
      await atlas.process.exited;
      sidecar.process.signal("SIGTERM");
      expect(await sidecar.process.exited).toBe(0);
      const before = sidecar.haproxy();
      expect(before.length).toBe(2);
      const second = await startSidecar(world, atlas, { again: sidecar });
      expect(second.haproxy()).toEqual(before);
      expect(second.process.output()).toContain("HAProxy adopted");
      await Bun.sleep(500);
      expect((await traffic.stop()).failures).toEqual([]);
      expect(await second.why("identity")).toMatchObject({ atlas: { connected: false }, usable: 1 });

      second.process.signal("SIGKILL");
      await second.process.exited;
      for (const pid of before) process.kill(pid, "SIGKILL");
      await eventually("HAProxy is gone", () => expect(second.haproxy()).toEqual([]));
      const started = performance.now();
      const third = await startSidecar(world, atlas, { again: sidecar, unready: true, flags: ["--stop-haproxy"] });
      await eventually("identity is routed", async () => expect(await answering(third.bind)).toBe("one"));
      expect(performance.now() - started).toBeLessThan(2_000);
      await eventually("it is ready", () => ready(third.admin), 2_000);
    },
  );

  scenario(
    "a first start is not ready, routes its own instances, and becomes ready when Atlas comes",
    async (world) => {
      const port = await world.port();
      const sidecar = await startSidecar(
        world,
        { url: `http://127.0.0.1:${port}` },
        { unready: true, flags: ["--stop-haproxy"] },
      );
      const one = backend(world, "one");
      await eventually("it registers", () => sidecar.client.put("identity", "host001:1", { port: one.port }));
      await eventually("identity is routed", async () => expect(await answering(sidecar.bind)).toBe("one"));
      expect((await fetch(`${sidecar.admin}/readyz`)).status).toBe(503);
      await startAtlas(world, { port, dataDir: join(world.directory, "atlas") });
      await eventually("it is ready", () => ready(sidecar.admin));
    },
  );
});

describe("without HAProxy", () => {
  scenario("a host whose port was taken says that it is not ready, and recovers by itself", async (world) => {
    const atlas = await startAtlas(world);
    const sidecar = await startSidecar(world, atlas, { flags: ["--stop-haproxy"] });
    const one = backend(world, "one");
    await sidecar.client.put("identity", "host001:1", { port: one.port, definition: quick });
    await eventually("identity is routed", () => answering(sidecar.bind));
    // while the sidecar cannot look, HAProxy dies and another program takes its port
    sidecar.process.signal("SIGSTOP");
    for (const pid of sidecar.haproxy()) process.kill(pid, "SIGKILL");
    const thief = await eventually("the port is free", () =>
      Bun.serve({ port: sidecar.bind, hostname: "127.0.0.1", reusePort: false, fetch: () => new Response("mine") }),
    );
    world.defer(() => thief.stop(true));
    sidecar.process.signal("SIGCONT");
    await eventually("it is not ready", async () => expect((await fetch(`${sidecar.admin}/readyz`)).status).toBe(503));
    expect((await fetch(`${sidecar.admin}/healthcheck`)).status).toBe(500);
    await eventually("it has tried to start HAProxy", () =>
      expect(sidecar.process.output()).toContain("could not be started again"),
    );
    expect((await sidecar.why("identity")).notes.join()).toContain("HAProxy does not run");
    await thief.stop(true);
    await eventually("identity is routed again", async () => expect(await answering(sidecar.bind)).toBe("one"));
    await eventually("it is ready", () => ready(sidecar.admin));
  });
});

describe("a sidecar that dies", () => {
  scenario(
    "by kill -9 under load costs nothing, and the next one adopts the same HAProxy and catches up",
    async (world) => {
      const atlas = await startAtlas(world);
      let sidecar = await startSidecar(world, atlas);
      const [one, two] = [backend(world, "one"), backend(world, "two")];
      await sidecar.client.put("identity", "host001:1", { port: one.port, definition: quick });
      await sidecar.client.put("identity", "host001:2", { port: two.port });
      await eventually("both are usable", async () => expect((await sidecar.why("identity")).usable).toBe(2));
      const before = sidecar.haproxy();
      const traffic = load(sidecar.bind, identity);
      for (let round = 0; round < 3; round += 1) {
        sidecar.process.signal("SIGKILL");
        await sidecar.process.exited;
        // what happens meanwhile is caught up with
        const enabled = round % 2 === 1;
        await atlas.ask("/v1/services/identity/instances/host001:1", "PATCH", { enabled });
        sidecar = await startSidecar(world, atlas, { again: sidecar, flags: ["--stop-haproxy"] });
        await eventually("it caught up", async () =>
          expect((await sidecar.why("identity")).usable).toBe(enabled ? 2 : 1),
        );
        expect(sidecar.haproxy()).toEqual(before);
      }
      const { sent, failures } = await traffic.stop();
      expect(failures).toEqual([]);
      expect(sent).toBeGreaterThan(100);
      expect((await atlas.instances("identity")).length).toBe(2);
    },
  );

  scenario("a drain that was confirmed a moment before kill -9 still holds after the restart", async (world) => {
    const atlas = await startAtlas(world);
    let sidecar = await startSidecar(world, atlas);
    const [one, two] = [backend(world, "one"), backend(world, "two")];
    for (const { name, port } of [one, two]) {
      await atlas.ask(`/v1/services/identity/instances/${name}`, "PUT", { port, address: "127.0.0.1" });
    }
    await eventually("both are usable", async () => expect((await sidecar.why("identity")).usable).toBe(2));
    await atlas.ask("/v1/services/identity/instances/one?wait=applied", "PATCH", { enabled: false });
    sidecar.process.signal("SIGKILL");
    const connection = new Connection(sidecar.bind);
    world.defer(() => connection.close());
    await sidecar.process.exited;
    const starting = startSidecar(world, atlas, { again: sidecar, flags: ["--stop-haproxy"] });
    const started = new AbortController();
    void starting.finally(() => started.abort());
    while (!started.signal.aborted) expect(await answeringOn(connection)).toBe("two");
    sidecar = await starting;
    for (let request = 0; request < 50; request += 1) expect(await answeringOn(connection)).toBe("two");
  });

  scenario(
    "and left its state in pieces: it is kept aside, and HAProxy left alone until Atlas speaks",
    async (world) => {
      const atlas = await startAtlas(world);
      const sidecar = await startSidecar(world, atlas);
      const one = backend(world, "one");
      await atlas.ask("/v1/services/identity/instances/one", "PUT", { port: one.port, address: "127.0.0.1" });
      await eventually("identity is routed", () => answering(sidecar.bind));
      const traffic = load(sidecar.bind, identity);
      for (const { process } of [sidecar, atlas]) process.signal("SIGKILL");
      await Promise.all([sidecar.process.exited, atlas.process.exited]);
      await writeFile(join(sidecar.stateDir, "state.json"), '{"format":1,"snap');
      const second = await startSidecar(world, atlas, { again: sidecar, unready: true, flags: ["--stop-haproxy"] });
      await eventually("it says so", () => expect(second.process.output()).toContain("left alone until Atlas speaks"));
      expect((await readdir(sidecar.stateDir)).filter((name) => name.startsWith("state.json.unusable"))).toHaveLength(
        1,
      );
      await Bun.sleep(500);
      await startAtlas(world, atlas);
      await eventually("it is ready", () => ready(second.admin));
      expect(await answering(second.bind)).toBe("one");
      expect((await traffic.stop()).failures).toEqual([]);
    },
  );
});

describe("a registry that lies", () => {
  scenario("emptied: what answers stays, what is dead goes, and the truth is taken when it is back", async (world) => {
    const atlas = await startAtlas(world);
    const sidecar = await startSidecar(world, atlas, { flags: ["--stop-haproxy"] });
    const [one, two] = [backend(world, "one"), backend(world, "two")];
    await atlas.ask("/v1/services/identity", "PUT", quick);
    for (const { name, port } of [one, two]) {
      await atlas.ask(`/v1/services/identity/instances/${name}`, "PUT", { port, address: "127.0.0.1" });
    }
    await eventually("both are usable", async () => expect((await sidecar.why("identity")).usable).toBe(2));
    const traffic = load(sidecar.bind, identity);
    atlas.process.signal("SIGKILL");
    await atlas.process.exited;
    await rm(atlas.dataDir, { recursive: true });
    const emptied = await startAtlas(world, atlas);
    await eventually("both are held", async () => {
      const { servers, atlas: link } = await sidecar.why("identity");
      expect(link.connected).toBe(true);
      expect(servers.map(({ haproxy }) => haproxy)).toEqual(["HELD UP", "HELD UP"]);
      expect(servers[0]?.because).toStartWith("vanished from Atlas without a reason, our probe passes");
    });
    expect((await traffic.stop()).failures).toEqual([]);
    two.stop();
    await eventually(
      "the dead one is gone",
      async () => expect((await sidecar.why("identity")).servers.map(({ instance }) => instance)).toEqual(["one"]),
      20_000,
    );
    await emptied.ask("/v1/services/identity/instances/one", "PUT", { port: one.port, address: "127.0.0.1" });
    await eventually("the registry's word counts again", async () => {
      expect((await sidecar.why("identity")).servers.map(({ haproxy }) => haproxy)).toEqual(["UP"]);
    });
    await emptied.ask("/v1/services/identity/instances/one?wait=applied", "DELETE");
    expect((await sidecar.why("identity")).total).toBe(0);
  });

  scenario("of another realm: refused, reported, and nothing changes", async (world) => {
    const atlas = await startAtlas(world);
    const sidecar = await startSidecar(world, atlas, { flags: ["--stop-haproxy"] });
    const one = backend(world, "one");
    await atlas.ask("/v1/services/identity/instances/one", "PUT", { port: one.port, address: "127.0.0.1" });
    await eventually("identity is routed", () => answering(sidecar.bind));
    atlas.process.signal("SIGKILL");
    await atlas.process.exited;
    const other = world.spawn([
      BINARY,
      "atlas",
      "--listen",
      `127.0.0.1:${atlas.port}`,
      "--data-dir",
      join(world.directory, "prod"),
      "--realm",
      "prod",
    ]);
    await eventually("it says so", async () => {
      expect((await sidecar.why("identity")).notes.join()).toContain("belongs to the realm prod, not local");
    });
    expect(await answering(sidecar.bind)).toBe("one");
    await other.stop();
  });
});

describe("two hosts", () => {
  scenario("an instance of one is drained on both before the drain is confirmed", async (world) => {
    const atlas = await startAtlas(world);
    const [here, there] = await Promise.all([
      startSidecar(world, atlas, { flags: ["--stop-haproxy"] }),
      startSidecar(world, atlas, { host: "host002", flags: ["--stop-haproxy"] }),
    ]);
    const [one, two] = [backend(world, "one"), backend(world, "two")];
    await here.client.put("identity", "host001:1", { port: one.port, definition: quick });
    await there.client.put("identity", "host002:2", { port: two.port });
    for (const sidecar of [here, there]) {
      await eventually("both are usable", async () => expect((await sidecar.why("identity")).usable).toBe(2));
    }
    expect(await here.client.drain("identity", "host001:1", 10_000)).toMatchObject({ applied: 2, total: 2 });
    const connection = new Connection(there.bind);
    for (let request = 0; request < 50; request += 1) expect(await answeringOn(connection)).toBe("two");
    connection.close();
  });

  scenario("a drain is not confirmed while a host does not answer", async (world) => {
    const atlas = await startAtlas(world);
    const here = await startSidecar(world, atlas, { flags: ["--stop-haproxy"] });
    const there = await startSidecar(world, atlas, { host: "host002", flags: ["--stop-haproxy"] });
    const one = backend(world, "one");
    await here.client.put("identity", "host001:1", { port: one.port, definition: quick });
    await eventually("the other host has it", async () => expect((await there.why("identity")).usable).toBe(1));
    there.process.signal("SIGSTOP");
    const refusal: unknown = await here.client.drain("identity", "host001:1", 1_000).catch((error: unknown) => error);
    there.process.signal("SIGCONT");
    expect(errorCode(refusal)).toBe("not_applied");
    expect(refusal).toMatchObject({ body: { pending: ["host002"] } });
  });
});

describe("a sidecar that cannot start says why, with exit code 1, and leaves nothing", () => {
  scenario("state directory in use", async (world) => {
    const atlas = await startAtlas(world);
    const first = await startSidecar(world, atlas, { flags: ["--stop-haproxy"] });
    const place = { atlas: atlas.url, host: "host001", bind: await world.port(), stateDir: first.stateDir };
    const admin = `http://127.0.0.1:${await world.port()}`;
    const { code, stderr } = await world.run([BINARY, ...sidecarCommand({ ...place, admin })]);
    expect(code).toBe(1);
    expect(stderr).toContain(`another sidecar uses ${first.stateDir}`);
    expect(await first.client.info()).toMatchObject({ host: "host001" });
    expect(first.haproxy().length).toBe(2);
  });

  scenario("busy ports, before and after HAProxy's time", async (world) => {
    const atlas = await startAtlas(world);
    const busy = backend(world, "busy").port;
    const free = await world.port();
    const stateDir = join(world.directory, "state");
    const start = (bind: number, admin: number) =>
      world.run([
        BINARY,
        ...sidecarCommand({ atlas: atlas.url, host: "host001", bind, admin: `http://127.0.0.1:${admin}`, stateDir }),
      ]);
    for (const [bind, admin, flag] of [
      [busy, free, "--bind"],
      [free, busy, "--admin"],
    ] as const) {
      const { code, stderr } = await start(bind, admin);
      expect(code).toBe(1);
      expect(stderr).toContain(`127.0.0.1:${busy}`);
      expect(stderr).toContain(flag);
      expect(await readdir(stateDir)).not.toContain("sidecar.sock");
    }
    const sidecar = await startSidecar(world, atlas, { flags: ["--stop-haproxy"] });
    expect(sidecar.haproxy().length).toBe(2);
  });

  scenario("no HAProxy, or an old one", async (world) => {
    const atlas = await startAtlas(world);
    const old = join(world.directory, "haproxy");
    await writeFile(old, "#!/bin/sh\necho 'HAProxy version 2.4.22 2023/02/14'\n", { mode: 0o755 });
    for (const [binary, message] of [
      ["/nowhere/haproxy", "/nowhere/haproxy"],
      [old, "2.4.22"],
    ] as const) {
      const place = { host: "host001", bind: await world.port(), stateDir: join(world.directory, "state") };
      const admin = `http://127.0.0.1:${await world.port()}`;
      const command = sidecarCommand({ ...place, atlas: atlas.url, admin });
      const { code, stderr } = await world.run([BINARY, ...command, "--haproxy", binary]);
      expect(code).toBe(1);
      expect(stderr).toContain(message);
      expect(stderr).toContain("2.6 or newer");
    }
  });

  scenario("but an environment without PATH is no reason", async (world) => {
    const atlas = await startAtlas(world);
    const sidecar = await startSidecar(world, atlas, { flags: ["--stop-haproxy"], env: { PATH: "/nowhere" } });
    expect(sidecar.haproxy().length).toBe(2);
  });

  scenario("a state directory that cannot be used", async (world) => {
    await writeFile(join(world.directory, "file"), "");
    const place = { atlas: "http://127.0.0.1:9", host: "host001", bind: await world.port() };
    const admin = `http://127.0.0.1:${await world.port()}`;
    for (const stateDir of [join(world.directory, "file"), "/proc/nothing", join(world.directory, "long".repeat(40))]) {
      const { code, stderr } = await world.run([BINARY, ...sidecarCommand({ ...place, admin, stateDir })]);
      expect(code).toBe(1);
      expect(stderr).toContain("--state-dir");
    }
  });

  test("flags that make no sense are named, with exit code 2", () => {
    const { exitCode, stderr } = Bun.spawnSync([
      BINARY,
      "sidecar",
      "--bind",
      "127.0.0.1:0",
      "--zone",
      "a b",
      "--realm",
      "X",
    ]);
    expect(exitCode).toBe(2);
    for (const key of ["bind", "zone", "realm"]) expect(stderr.toString()).toContain(`${key} (flag --${key})`);
  });
});
