// What must not go wrong with HAProxy when something else does.
// alone: it measures how long HAProxy is away.
import { expect } from "bun:test";
import { mkdir, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { createProxy } from "../core/haproxy/proxy.ts";
import { runBatch } from "../core/haproxy/runtime-api.ts";
import { eventually, scenario } from "./harness.ts";
import { backend, desired, instance, load, masterOf, router, send, workerOf } from "./haproxy-kit.ts";

const identity = { "Runscope-Service": "identity" };

scenario("HAProxy killed is back within a second, as it was", async (world) => {
  const { proxy, port, options } = await router(world);
  const [a, b] = [backend(world, "a"), backend(world, "b")];
  const instances = [instance("identity", "host001:5000", a.port), instance("identity", "host002:5000", b.port)];
  await proxy.start(desired({ identity: {} }, instances));
  await proxy.apply(
    desired({ identity: {} }, [instance("identity", "host001:5000", a.port, { enabled: false }), instances[1]!]),
  );
  const took: number[] = [];
  for (const victim of [masterOf, workerOf]) {
    const start = Date.now();
    process.kill(await victim(options.directory), "SIGKILL");
    await eventually("it routes again", async () => {
      expect(a.requests()).toBe(0);
      expect((await send(port, identity)).status).toBe(200);
    });
    took.push(Date.now() - start);
    await eventually("the drain is back", async () =>
      expect((await proxy.servers()).map(({ status }) => status.split(" ")[0])).toEqual(["DRAIN", "UP"]),
    );
  }
  // one of the two, since a busy machine may hold up either
  expect(Math.min(...took)).toBeLessThan(1_000);
  expect(a.requests()).toBe(0);
  expect((await proxy.apply(desired({ identity: {} }, instances))).reloaded).toBe(false);
});

/** A directory where a file should be: writing it fails, as on a full disk, for root too. */
async function block(path: string): Promise<void> {
  await rm(path, { force: true });
  await mkdir(join(path, "full"), { recursive: true });
}

scenario(
  "a disk that takes nothing keeps no drain from HAProxy, and a new service waits until there is room",
  async (world) => {
    const { proxy, port, options } = await router(world);
    const [a, b] = [backend(world, "a"), backend(world, "b")];
    const both = [instance("identity", "a", a.port), instance("identity", "b", b.port)];
    await proxy.start(desired({ identity: {} }, both));
    const traffic = load(port, identity);
    const files = ["haproxy.cfg", "check/haproxy.cfg"].map((name) => join(options.directory, name));
    for (const file of files) await block(file);
    const drained = [{ ...both[0]!, enabled: false }, both[1]!];
    expect((await proxy.apply(desired({ identity: {} }, drained))).rejected).toEqual([]);
    const before = a.requests();
    for (let request = 0; request < 20; request += 1) expect((await send(port, identity)).body).toContain('"name":"b"');
    const { rejected } = await proxy.apply(desired({ identity: {}, ads: {} }, both));
    expect(rejected).toMatchObject([{ service: "ads", error: expect.stringContaining("could not be asked") }]);
    await eventually("the drain is over all the same", () => expect(a.requests()).toBeGreaterThan(before));
    for (const file of files) await rm(file, { recursive: true });
    expect(await proxy.apply(desired({ identity: {}, ads: {} }, both))).toMatchObject({ rejected: [], reloaded: true });
    expect((await traffic.stop()).failures).toEqual([]);
  },
);

scenario("HAProxy killed while the disk takes nothing is back, and can be changed", async (world) => {
  const { proxy, port, options } = await router(world);
  const [a, b] = [backend(world, "a"), backend(world, "b")];
  const both = [instance("identity", "a", a.port), instance("identity", "b", b.port)];
  await proxy.start(desired({ identity: {} }, both));
  await block(join(options.directory, "loaded.json"));
  process.kill(await masterOf(options.directory), "SIGKILL");
  await eventually("it routes again", async () => expect((await send(port, identity)).status).toBe(200));
  await eventually("it is known to run", () => expect(proxy.alive).toBe(true));
  await proxy.apply(desired({ identity: {} }, [both[0]!]));
  for (let request = 0; request < 20; request += 1) expect((await send(port, identity)).body).toContain('"name":"a"');
});

scenario("the next sidecar adopts the HAProxy that runs, and nobody notices", async (world) => {
  const { proxy, port, options } = await router(world);
  const [a, b] = [backend(world, "a"), backend(world, "b")];
  const first = instance("identity", "host001:5000", a.port, { healthy: true });
  await proxy.start(desired({ identity: {} }, [first]));
  const worker = await workerOf(options.directory);
  const traffic = load(port, identity);
  await proxy.stop("keep");
  await Bun.sleep(100);

  const next = createProxy(options);
  world.defer(() => next.stop("end"));
  const applied = await next.start(
    desired({ identity: {} }, [first, instance("identity", "host002:5000", b.port, { healthy: true })]),
  );
  expect(applied).toEqual({ rejected: [], reloaded: false, reasons: [] });
  await eventually("the new instance gets requests", () => expect(b.requests()).toBeGreaterThan(0));
  expect(await workerOf(options.directory)).toBe(worker);
  expect((await next.apply(desired({ identity: {}, ads: {} }, [first]))).reasons).toEqual(['service "ads" added']);
  expect((await traffic.stop()).failures).toEqual([]);
});

scenario(
  "a definition that HAProxy refuses leaves that service as it was, and everything else applies",
  async (world) => {
    const { proxy, port } = await router(world);
    const [a, b, c] = [backend(world, "a"), backend(world, "b"), backend(world, "c")];
    const good = desired({ identity: {}, billing: {} }, [instance("identity", "host001:5000", a.port)]);
    await proxy.start(good);
    const broken = {
      ...good.services["identity"]!,
      healthcheck: { ...good.services["identity"]!.healthcheck, rise: 0 },
    };
    const applied = await proxy.apply({
      services: { ...good.services, identity: broken, ads: good.services["billing"]!, hopeless: broken },
      instances: [
        instance("identity", "host001:5000", b.port),
        instance("ads", "host001:5001", c.port),
        instance("hopeless", "host001:5002", c.port),
      ],
      agents: 1,
    });
    expect(applied.rejected.map(({ service }) => service).sort()).toEqual(["hopeless", "identity"]);
    for (const { error } of applied.rejected) expect(error).toContain("rise");
    expect(applied.reasons).toEqual(['service "ads" added']);
    // its instances still change
    expect(JSON.parse((await send(port, identity)).body)).toMatchObject({ name: "b" });
    expect((await send(port, { "Runscope-Service": "ads" })).status).toBe(200);
    expect((await send(port, { "Runscope-Service": "hopeless" })).status).toBe(404);
    expect((await proxy.apply(good)).rejected).toEqual([]);
  },
);

scenario("an address that does not resolve leaves out that instance alone", async (world) => {
  const { proxy, port } = await router(world);
  const a = backend(world, "a");
  const applied = await proxy.start(
    desired({ identity: {} }, [
      instance("identity", "host001:5000", a.port, { address: "localhost" }),
      instance("identity", "host002:5000", a.port, { address: "no-such-host.invalid" }),
    ]),
  );
  expect(applied.rejected).toEqual([
    { service: "identity", instance: expect.any(String), error: expect.stringContaining("no-such-host.invalid") },
  ]);
  expect((await send(port, identity)).status).toBe(200);
  expect((await proxy.servers()).map(({ instance }) => instance)).toEqual(["host001:5000"]);
});

scenario("a busy port is told before anything starts", async (world) => {
  const busy = Bun.listen({ port: 0, hostname: "127.0.0.1", socket: { data: () => undefined } });
  world.defer(() => busy.stop(true));
  const { proxy, options } = await router(world, { bind: `127.0.0.1:${busy.port}` });
  expect(await proxy.start(desired({}, [])).catch((error: unknown) => error)).toMatchObject({ code: "address_in_use" });
  expect(await masterOf(options.directory)).toBe(0);
});

/** A program that runs a proxy for one service until it is killed. */
const program = (directory: string, bind: string, port: number): string => `
  import { createProxy } from ${JSON.stringify(resolve(import.meta.dir, "../core/haproxy/proxy.ts"))};
  import { desired, instance } from ${JSON.stringify(resolve(import.meta.dir, "haproxy-kit.ts"))};
  import { silentLogger as logger } from ${JSON.stringify(resolve(import.meta.dir, "../core/lib/logger.ts"))};
  const proxy = createProxy({ directory: ${JSON.stringify(directory)}, bind: "${bind}", logger });
  await proxy.start(desired({ identity: {} }, [instance("identity", "host001:5000", ${port}, { healthy: true })]));
  console.log("ready");
  setInterval(() => undefined, 1_000);
`;

scenario("a sidecar that is killed takes nothing with it", async (world) => {
  const { proxy, port, options } = await router(world);
  const [a, b] = [backend(world, "a"), backend(world, "b")];
  const child = world.spawn([process.execPath, "-e", program(options.directory, options.bind, a.port)]);
  await eventually("it runs", () => expect(child.output()).toContain("ready"));
  const worker = await workerOf(options.directory);
  const traffic = load(port, identity);
  child.signal("SIGKILL");
  await child.exited;
  await Bun.sleep(300);
  const applied = await proxy.start(
    desired({ identity: {} }, [
      instance("identity", "host001:5000", a.port, { healthy: true }),
      instance("identity", "host002:5000", b.port, { healthy: true }),
    ]),
  );
  expect(applied.reloaded).toBe(false);
  await eventually("the new instance gets requests", () => expect(b.requests()).toBeGreaterThan(0));
  expect(await workerOf(options.directory)).toBe(worker);
  expect((await traffic.stop()).failures).toEqual([]);
});

scenario(
  "a sidecar that was killed in the middle of a reload is followed by one that adopts all the same",
  async (world) => {
    const { proxy, port, options } = await router(world);
    const a = backend(world, "a");
    const state = desired({ identity: {} }, [instance("identity", "host001:5000", a.port, { healthy: true })]);
    await proxy.start(state);
    const master = await masterOf(options.directory);
    const traffic = load(port, identity);
    await proxy.stop("keep");
    for (let turn = 0; turn < 3; turn += 1) {
      const socket = `${options.directory}/master.sock`;
      // 2.6 closes the connection instead of answering
      await runBatch({ socket, target: "master", commands: ["reload"] }).catch(() => undefined);
      const next = createProxy(options);
      world.defer(() => next.stop("end"));
      expect((await next.start(state)).rejected).toEqual([]);
      expect(await masterOf(options.directory)).toBe(master);
      await next.stop("keep");
    }
    expect((await traffic.stop()).failures).toEqual([]);
  },
);

scenario("a reload by somebody else costs nothing that was only said at run time", async (world) => {
  const { proxy, port, options } = await router(world);
  const [a, b] = [backend(world, "a"), backend(world, "b")];
  await proxy.start(desired({ identity: {} }, [instance("identity", "host001:5000", a.port, { healthy: true })]));
  await proxy.apply(
    desired({ identity: {} }, [
      instance("identity", "host001:5000", a.port, { healthy: true }),
      instance("identity", "host002:5000", b.port, { healthy: true, draining: true }),
      instance("identity", "host003:5000", b.port, { healthy: false }),
    ]),
  );
  const before = (await proxy.servers()).map(({ instance, status, weight }) => [
    instance,
    status.split(" ")[0],
    weight,
  ]);
  expect(before.map(([, status]) => status)).toEqual(["UP", "DRAIN", "DOWN"]);
  const traffic = load(port, identity);
  const worker = await workerOf(options.directory);
  process.kill(await masterOf(options.directory), "SIGUSR2");
  await eventually("there is a new worker", async () =>
    expect(await workerOf(options.directory)).toBeGreaterThan(worker),
  );
  await eventually("all is as it was", async () =>
    expect(
      (await proxy.servers()).map(({ instance, status, weight }) => [instance, status.split(" ")[0], weight]),
    ).toEqual(before),
  );
  expect((await traffic.stop()).failures).toEqual([]);
  expect(b.requests()).toBe(0);
});

scenario("a low limit of open files means fewer connections, not no HAProxy", async (world) => {
  const { port, options } = await router(world);
  const a = backend(world, "a");
  const script = `ulimit -n 256; exec "$0" -e "$1"`;
  const child = world.spawn(["sh", "-c", script, process.execPath, program(options.directory, options.bind, a.port)]);
  world.defer(async () => void process.kill(await masterOf(options.directory), "SIGTERM"));
  await eventually("it runs", () => expect(child.output()).toContain("ready"));
  const config = await Bun.file(`${options.directory}/haproxy.cfg`).text();
  expect(Number(/maxconn (\d+)/.exec(config)?.[1])).toBeLessThan(128);
  const answers = await Promise.all(Array.from({ length: 200 }, () => send(port, identity)));
  for (const { status, headers } of answers) {
    expect([200, 503]).toContain(status);
    if (status === 503) expect(headers["smartstack-reply"]).toBe("proxy");
  }
});

scenario("an address that is busy is refused at a reload too, and what runs goes on", async (world) => {
  const { proxy, port, options } = await router(world);
  const a = backend(world, "a");
  const state = desired({ identity: {} }, [instance("identity", "host001:5000", a.port, { healthy: true })]);
  await proxy.start(state);
  await proxy.stop("keep");
  const busy = Bun.listen({ port: 0, hostname: "127.0.0.1", socket: { data: () => undefined } });
  world.defer(() => busy.stop(true));
  const moved = createProxy({ ...options, bind: `127.0.0.1:${busy.port}` });
  world.defer(() => moved.stop("end"));
  const traffic = load(port, identity);
  expect(await moved.start(state).catch((error: unknown) => error)).toMatchObject({ code: "address_in_use" });
  expect((await traffic.stop()).failures).toEqual([]);
  busy.stop(true);
  expect((await moved.apply(state)).reasons).toEqual(["the settings of HAProxy itself changed"]);
  expect((await send(busy.port, identity)).status).toBe(200);
});

scenario("a request that an instance may have seen is never sent twice", async (world) => {
  const { proxy, port } = await router(world);
  const bodies: string[] = [];
  const rude = () =>
    Bun.listen({
      port: 0,
      hostname: "127.0.0.1",
      socket: {
        data(socket, data) {
          if (data.includes("/healthcheck")) socket.end("HTTP/1.1 200 OK\r\n\r\n");
          else {
            bodies.push(data.toString());
            socket.terminate();
          }
        },
      },
    });
  const listeners = [rude(), rude()];
  for (const listener of listeners) world.defer(() => listener.stop(true));
  await proxy.start(
    desired(
      { identity: {} },
      listeners.map((listener, index) => instance("identity", `host00${index}:5000`, listener.port, { healthy: true })),
    ),
  );
  for (let turn = 1; turn <= 10; turn += 1) {
    const answer = await send(port, identity, "/", "POST");
    expect([answer.status, answer.headers["smartstack-reply"]]).toEqual([502, undefined]);
    expect(bodies.length).toBe(turn);
  }
});

scenario("a full instance makes requests wait for queueMs and then say that nothing was sent", async (world) => {
  const { proxy, port } = await router(world);
  const a = backend(world, "a");
  const release = Promise.withResolvers<void>();
  a.answer(async () => {
    await release.promise;
    return new Response();
  });
  const definition = { maxConnections: 1, timeouts: { queueMs: 200 } };
  await proxy.start(
    desired({ identity: definition }, [instance("identity", "host001:5000", a.port, { healthy: true })]),
  );
  const first = send(port, identity);
  await eventually("it is busy", () => expect(a.requests()).toBe(1));
  const start = Date.now();
  const second = await send(port, identity);
  expect([second.status, second.headers["smartstack-reply"]]).toEqual([503, "proxy"]);
  const tookMs = Date.now() - start;
  expect(tookMs).toBeGreaterThanOrEqual(190);
  expect(tookMs).toBeLessThan(4_000);
  release.resolve();
  expect((await first).status).toBe(200);
  expect(a.requests()).toBe(1);
});

scenario("what HAProxy found to be down stays down over a reload", async (world) => {
  const { proxy, port } = await router(world);
  const [a, b] = [backend(world, "a"), backend(world, "b")];
  b.health(500);
  const instances = [
    instance("identity", "host001:5000", a.port, { healthy: true }),
    instance("identity", "host002:5000", b.port),
  ];
  const healthcheck = { intervalMs: 300, rise: 100, fall: 1 };
  await proxy.start(desired({ identity: { healthcheck } }, instances));
  await eventually("it is down", async () => expect((await proxy.servers())[1]?.status).toBe("DOWN"));
  b.health(200);
  const before = b.requests();
  const traffic = load(port, identity);
  expect((await proxy.apply(desired({ identity: { healthcheck }, ads: {} }, instances))).reloaded).toBe(true);
  await Bun.sleep(200);
  await traffic.stop();
  expect(b.requests()).toBe(before);
  expect((await proxy.servers())[1]?.status).toMatch(/^DOWN/);
});

scenario(
  "hundreds of random changes leave HAProxy as the last one said, with no reload and no failed request",
  async (world) => {
    const { proxy, port, options } = await router(world);
    const backends = ["a", "b", "c", "d", "e"].map((name) => backend(world, name));
    const stable = backend(world, "stable");
    // HAProxy's own verdicts have no part in this, however busy the machine is
    const services = { identity: { healthcheck: { intervalMs: 60_000, timeoutMs: 60_000 } } };
    const always = instance("identity", "host000:5000", stable.port, { healthy: true });
    await proxy.start(desired(services, [always]));
    const worker = await workerOf(options.directory);
    const traffic = load(port, identity);
    const pick = <T>(list: readonly T[]): T => list[Math.floor(Math.random() * list.length)] as T;
    const random = () => [
      always,
      ...["host001:5000", "host002:5000", "[::1]:5000", "host003"]
        .filter(() => Math.random() < 0.7)
        .map((name) =>
          instance("identity", name, pick(backends).port, {
            enabled: Math.random() < 0.8,
            draining: Math.random() < 0.2,
            healthy: Math.random() < 0.8,
            weight: pick([0, 1, 50, 100, 256]),
          }),
        ),
    ];
    const applied: Promise<unknown>[] = [];
    let last = random();
    for (let turn = 0; turn < 300; turn += 1) {
      last = random();
      const done = proxy.apply(desired(services, last));
      applied.push(done);
      if (turn % 7 === 0) await done;
    }
    for (const each of await Promise.all(applied)) expect(each).toMatchObject({ rejected: [], reloaded: false });
    const expected = last.map(({ instance, port, weight, healthy, enabled, draining }) =>
      [instance, port, weight, healthy === false ? "DOWN" : !enabled || draining ? "DRAIN" : "UP"].join(" "),
    );
    const actual = (await proxy.servers()).map(({ instance, port, weight, status }) =>
      [instance, port, weight, status.split(/[ /]/)[0]].join(" "),
    );
    expect(actual.sort()).toEqual(expected.sort());
    expect((await traffic.stop()).failures).toEqual([]);
    expect(await workerOf(options.directory)).toBe(worker);
  },
);
