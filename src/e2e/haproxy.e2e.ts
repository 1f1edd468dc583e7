// core/haproxy against a real HAProxy and real little servers.
// alone: it measures how long drains, workers and refused connections take.
import { expect } from "bun:test";
import { type AccessRecord, createProxy } from "../core/haproxy/proxy.ts";
import { eventually, scenario } from "./harness.ts";
import { backend, Connection, desired, instance, load, router, send, workerOf } from "./haproxy-kit.ts";

const identity = { "Runscope-Service": "identity" };

scenario("the routing table: header, host, unknown, none usable, repeated, forged", async (world) => {
  const { proxy, port } = await router(world);
  const a = backend(world, "a");
  await proxy.start(desired({ identity: {}, billing: {} }, [instance("identity", "host001:5000", a.port)]));

  for (const headers of [
    identity,
    { "runscope-service": "IDENTITY" },
    { host: "identity.service" },
    { host: "Identity.Service:4000" },
    { ...identity, host: "billing.service" },
  ]) {
    const answer = await send(port, headers);
    expect({ headers, status: answer.status }).toEqual({ headers, status: 200 });
    // what HAProxy says of itself, an instance may not say
    expect(answer.headers["smartstack-reply"]).toBeUndefined();
  }

  const unknown = await send(port, { "Runscope-Service": `x"y\\<script>&` });
  expect(unknown.status).toBe(404);
  expect(unknown.headers).toMatchObject({ "content-type": "application/problem+json", "smartstack-reply": "proxy" });
  expect(JSON.parse(unknown.body)).toMatchObject({
    status: 404,
    code: "not_found",
    detail: `unknown service: x"y\\<script>&`,
  });
  expect(unknown.body).not.toContain("<script>");

  const unnamed = await send(port, {});
  expect([unnamed.status, unnamed.headers["smartstack-reply"]]).toEqual([404, "proxy"]);
  for (const host of ["a.identity.service", "service", ".service", "identityXservice"]) {
    expect({ host, status: (await send(port, { host })).status }).toEqual({ host, status: 404 });
  }

  const nobody = await send(port, { "Runscope-Service": "billing" });
  expect(nobody.status).toBe(503);
  expect(nobody.headers).toMatchObject({ "content-type": "application/problem+json", "smartstack-reply": "proxy" });
  expect(JSON.parse(nobody.body)).toMatchObject({ status: 503, code: "unavailable" });

  const both = await send(port, { "Runscope-Service": "identity\r\nRunscope-Service: billing" });
  expect(both.status).toBe(400);
  expect(both.headers["smartstack-reply"]).toBeUndefined();
  expect(JSON.parse(both.body)).toMatchObject({ status: 400, code: "invalid" });
  expect((await send(port, { "Runscope-Service": "identity, billing" })).status).toBe(400);
});

scenario("its own 502 and 504 come after the instance had the request, and are not marked", async (world) => {
  const { proxy, port } = await router(world);
  const broken = Bun.listen({
    port: 0,
    hostname: "127.0.0.1",
    socket: {
      data: (socket, data) =>
        void socket.end(data.includes("/healthcheck") ? "HTTP/1.1 200 OK\r\n\r\n" : "no HTTP\r\n\r\n"),
    },
  });
  world.defer(() => broken.stop(true));
  const slow = backend(world, "slow");
  slow.answer(async () => {
    await Bun.sleep(1_000);
    return new Response();
  });
  await proxy.start(
    desired({ identity: {}, slow: { timeouts: { requestMs: 200 } } }, [
      instance("identity", "host001:5000", broken.port),
      instance("slow", "host001:5001", slow.port),
    ]),
  );
  const bad = await send(port, identity);
  expect([bad.status, bad.headers["smartstack-reply"], JSON.parse(bad.body).code]).toEqual([
    502,
    undefined,
    "bad_gateway",
  ]);
  const late = await send(port, { "Runscope-Service": "slow" });
  expect([late.status, late.headers["smartstack-reply"], JSON.parse(late.body).code]).toEqual([
    504,
    undefined,
    "gateway_timeout",
  ]);
});

scenario("an instance that refuses connections costs nothing while another one lives", async (world) => {
  const { proxy, port } = await router(world);
  const [alive, dead] = [backend(world, "alive"), backend(world, "dead")];
  await proxy.start(
    desired({ identity: {} }, [
      instance("identity", "host001:5000", alive.port),
      instance("identity", "host002:5000", dead.port),
    ]),
  );
  dead.stop();
  for (let turn = 0; turn < 30; turn += 1) expect((await send(port, identity, "/", "POST")).status).toBe(200);
  alive.stop();
  const none = await send(port, identity);
  expect([none.status, none.headers["smartstack-reply"]]).toEqual([503, "proxy"]);
});

scenario("a pin reaches its instance, drained or disabled, and never another", async (world) => {
  const { proxy, port } = await router(world);
  const [a, b] = [backend(world, "a"), backend(world, "b")];
  const pin = async (name: string): Promise<string | number> => {
    const answer = await send(port, { ...identity, "Smartstack-Instance": name });
    if (answer.status === 503) expect(answer.headers["smartstack-reply"]).toBe("proxy");
    return answer.status === 200 ? (JSON.parse(answer.body) as { name: string }).name : answer.status;
  };
  const pins = async (name: string): Promise<ReadonlySet<string | number>> => {
    const seen = new Set<string | number>();
    for (let turn = 0; turn < 10; turn += 1) seen.add(await pin(name));
    return seen;
  };
  const state = (more: Parameters<typeof instance>[3]) =>
    desired({ identity: {}, empty: {} }, [
      instance("identity", "host001:5000", a.port),
      instance("identity", "[::1]:5000", b.port, more),
    ]);

  await proxy.start(state({ healthy: true }));
  expect(await pins("host001:5000")).toEqual(new Set(["a"]));
  expect(await pins("[::1]:5000")).toEqual(new Set(["b"]));
  expect(await pins("host009:5000")).toEqual(new Set([503]));
  expect(await pins("empty-backend/host001:5000")).toEqual(new Set([503]));
  expect((await send(port, { "Runscope-Service": "empty", "Smartstack-Instance": "host001:5000" })).status).toBe(503);
  expect((await send(port, { "Runscope-Service": "nope", "Smartstack-Instance": "host001:5000" })).status).toBe(404);
  const twice = { ...identity, "Smartstack-Instance": "host001:5000\r\nSmartstack-Instance: x" };
  expect((await send(port, twice)).status).toBe(400);

  for (const drained of [{ enabled: false }, { draining: true }, { weight: 0 }]) {
    await proxy.apply(state({ healthy: true, ...drained }));
    expect(await pins("[::1]:5000")).toEqual(new Set(["b"]));
    const before = b.requests();
    for (let turn = 0; turn < 20; turn += 1) expect((await send(port, identity)).status).toBe(200);
    expect(b.requests()).toBe(before);
  }

  await proxy.apply(state({ healthy: false }));
  expect(await pins("[::1]:5000")).toEqual(new Set([503]));
  await proxy.apply(state({ healthy: false, enabled: false }));
  expect(await pins("[::1]:5000")).toEqual(new Set([503]));
  await proxy.apply(state({ healthy: true }));
  expect(await pins("[::1]:5000")).toEqual(new Set(["b"]));

  // dead, and HAProxy has not noticed: a failed connection is not tried on another
  b.stop();
  expect(await pins("[::1]:5000")).toEqual(new Set([503]));

  await proxy.apply(desired({ identity: {}, empty: {} }, [instance("identity", "host001:5000", a.port)]));
  expect(await pins("[::1]:5000")).toEqual(new Set([503]));
});

scenario("HAProxy's own verdict on an instance that nobody else checks counts for pins too", async (world) => {
  const { proxy, port } = await router(world);
  const [a, b] = [backend(world, "a"), backend(world, "b")];
  b.health(500);
  const healthcheck = { intervalMs: 100, rise: 1, fall: 1 };
  await proxy.start(
    desired({ identity: { healthcheck } }, [
      instance("identity", "host001:5000", a.port),
      instance("identity", "host002:5000", b.port),
    ]),
  );
  const pinned = { ...identity, "Smartstack-Instance": "host002:5000" };
  await eventually("the pin is refused", async () => expect((await send(port, pinned)).status).toBe(503));
  expect((await proxy.servers()).find(({ instance }) => instance === "host002:5000")).toMatchObject({
    status: "DOWN",
    check: expect.stringMatching(/^check 500, \d+ ms$/),
  });
  b.health(200);
  await eventually("the pin passes again", async () => expect((await send(port, pinned)).status).toBe(200));
});

scenario("instances come, drain, change and go without a reload and without a failed request", async (world) => {
  const { proxy, port, options } = await router(world);
  const backends = ["a", "b", "c", "d"].map((name) => backend(world, name));
  const [a, b, c, d] = backends as [
    (typeof backends)[0],
    (typeof backends)[0],
    (typeof backends)[0],
    (typeof backends)[0],
  ];
  const services = { identity: {} };
  const one = instance("identity", "host001:5000", a.port, { healthy: true });
  await proxy.start(desired(services, [one]));
  const worker = await workerOf(options.directory);
  const traffic = load(port, identity);

  const states = [
    [one, instance("identity", "host002:5000", b.port, { healthy: true })],
    [one, instance("identity", "host002:5000", b.port, { healthy: true, draining: true })],
    [one, instance("identity", "host002:5000", c.port, { healthy: true })],
    [
      one,
      instance("identity", "host002:5000", c.port, { healthy: false }),
      instance("identity", "host003:5000", d.port),
    ],
    [instance("identity", "host003:5000", d.port, { weight: 7 })],
    [instance("identity", "host003:5000", d.port, { weight: 256 }), instance("identity", "host002:5000", b.port)],
    [one, instance("identity", "host002:5000", b.port, { enabled: false, healthy: true })],
  ];
  for (let turn = 0; turn < 3; turn += 1) {
    for (const instances of states) {
      expect(await proxy.apply(desired(services, instances))).toEqual({ rejected: [], reloaded: false, reasons: [] });
      const usable = new Set(
        instances.filter((i) => i.enabled && !i.draining && i.healthy !== false).map((i) => i.port),
      );
      // applied means applied: from this moment nobody else gets a request
      await Bun.sleep(10);
      const before = backends.map((each) => each.requests());
      await Bun.sleep(60);
      for (const [index, each] of backends.entries()) {
        if (!usable.has(each.port)) expect(each.requests()).toBe(before[index] ?? 0);
      }
    }
  }
  const { sent, failures } = await traffic.stop();
  expect(failures).toEqual([]);
  expect(sent).toBeGreaterThan(200);
  expect(await workerOf(options.directory)).toBe(worker);
});

scenario("a new service costs a reload that says why and loses nothing", async (world) => {
  const { proxy, port, options } = await router(world);
  const [a, b] = [backend(world, "a"), backend(world, "b")];
  const instances = [
    instance("identity", "host001:5000", a.port, { healthy: true }),
    instance("identity", "host002:5000", b.port, { healthy: true, draining: true }),
  ];
  await proxy.start(desired({ identity: {} }, instances));
  const worker = await workerOf(options.directory);
  const traffic = load(port, identity, 16);
  await Bun.sleep(100);
  const first = await proxy.apply(desired({ identity: {}, ads: {} }, instances));
  const firstDone = Date.now();
  expect(first).toEqual({ rejected: [], reloaded: true, reasons: ['service "ads" added'] });
  expect(await workerOf(options.directory)).not.toBe(worker);
  // what the file cannot say, the sidecar said again
  expect(
    (await proxy.servers()).map(({ instance, status, weight }) => [instance, status.split(" ")[0], weight]),
  ).toEqual([
    ["host001:5000", "UP", 100],
    ["host002:5000", "DRAIN", 100],
  ]);
  const second = await proxy.apply(
    desired({ identity: { timeouts: { requestMs: 5_000 }, description: "who is who" } }, instances),
  );
  expect(second.reasons).toEqual([
    'service "identity" changed: timeouts.requestMs 30000 → 5000',
    'service "ads" removed',
  ]);
  expect(Date.now() - firstDone).toBeGreaterThan(1_900);
  const { sent, failures } = await traffic.stop();
  expect(failures).toEqual([]);
  expect(sent).toBeGreaterThan(200);
  expect(b.requests()).toBe(0);
  // no reload for what HAProxy does not know
  const cosmetic = desired({ identity: { timeouts: { requestMs: 5_000 }, owner: "core" } }, instances);
  expect((await proxy.apply(cosmetic)).reloaded).toBe(false);
});

scenario("a drain right after a reload counts as applied only when no old worker can undo it", async (world) => {
  const { proxy, port } = await router(world);
  const [a, b] = [backend(world, "a"), backend(world, "b")];
  const state = (services: Record<string, object>, drained: boolean) =>
    desired(services, [
      instance("identity", "host001:5000", a.port, { healthy: true }),
      instance("identity", "host002:5000", b.port, { healthy: true, draining: drained }),
    ]);
  await proxy.start(state({ identity: {} }, false));
  const idle = Array.from({ length: 20 }, () => new Connection(port));
  for (const connection of idle) await connection.send(identity);
  expect((await proxy.apply(state({ identity: {}, ads: {} }, false))).reloaded).toBe(true);
  const reloaded = Date.now();
  // one of them shows that the old worker is still there
  expect(idle[0]?.open).toBe(true);
  expect((await proxy.apply(state({ identity: {}, ads: {} }, true))).reloaded).toBe(false);
  expect(Date.now() - reloaded).toBeLessThan(6_000);
  const before = b.requests();
  for (const connection of idle) {
    if (!connection.open) connection.close();
    expect((await connection.send(identity)).status).toBe(200);
    connection.close();
  }
  expect(b.requests()).toBe(before);
});

scenario("a drain that comes with a reload holds at once, also on the worker that goes", async (world) => {
  const { proxy, port } = await router(world);
  const [a, b] = [backend(world, "a"), backend(world, "b")];
  const state = (services: Record<string, object>, drained: boolean) =>
    desired(services, [
      instance("identity", "host001:5000", a.port, { healthy: true }),
      instance("identity", "host002:5000", b.port, { healthy: true, draining: drained }),
    ]);
  await proxy.start(state({ identity: {} }, false));
  const idle = Array.from({ length: 20 }, () => new Connection(port));
  for (const connection of idle) await connection.send(identity);
  const start = Date.now();
  expect((await proxy.apply(state({ identity: {}, ads: {} }, true))).reloaded).toBe(true);
  // it would be five seconds and more if the old worker had to be waited for
  expect(Date.now() - start).toBeLessThan(4_500);
  const before = b.requests();
  for (const connection of idle) {
    expect(connection.open).toBe(true);
    const answer = await connection.send(identity);
    expect([answer.status, answer.headers["connection"]]).toEqual([200, "close"]);
  }
  expect(b.requests()).toBe(before);
});

scenario("one hung service cannot take the connections of the others", async (world) => {
  const { proxy, port } = await router(world, { maxconn: 80 });
  const [hung, fine] = [backend(world, "hung"), backend(world, "fine")];
  const release = Promise.withResolvers<void>();
  hung.answer(async () => {
    await release.promise;
    return new Response("late");
  });
  await proxy.start(
    desired({ identity: {}, hung: {} }, [
      instance("identity", "host001:5000", fine.port),
      instance("hung", "host001:5001", hung.port),
    ]),
  );
  let turnedAway = 0;
  const calls = Array.from({ length: 60 }, async () => {
    const answer = await send(port, { "Runscope-Service": "hung" });
    if (answer.status !== 200) turnedAway += 1;
    return answer;
  });
  await eventually("the hung service has its share", () => expect(hung.requests()).toBe(20));
  // one that was still on its way when the service goes on would be answered by it
  await eventually("all others are turned away", () => expect(turnedAway).toBe(40));
  expect((await send(port, identity)).status).toBe(200);
  release.resolve();
  const answers = await Promise.all(calls);
  expect(answers.filter(({ status }) => status === 200).length).toBe(20);
  const refused = answers.filter(({ status }) => status === 503);
  expect(refused.length).toBe(40);
  for (const { headers } of refused) expect(headers["smartstack-reply"]).toBe("proxy");
});

scenario("the access log agrees with what was sent, across a reload and a new reader", async (world) => {
  const records: AccessRecord[] = [];
  // one thread: HAProxy drops a line rather than wait for another thread that writes one
  const { proxy, port, options } = await router(world, { threads: 1, onAccess: (record) => records.push(record) });
  const a = backend(world, "a");
  const instances = [instance("identity", "host001:5000", a.port, { healthy: true })];
  await proxy.start(desired({ identity: {} }, instances));
  const sent = new Map<string, number>();
  const request = async (id: string): Promise<void> => {
    const known = Number(id.slice(1)) % 3 !== 0;
    const headers = { "Runscope-Service": known ? "identity" : `no "${id}"`, "X-Request-Id": id };
    sent.set(id, (await send(port, headers, `/a"b/${id}?secret=1`)).status);
  };
  for (let n = 0; n < 50; n += 1) await request(`r${n}`);
  const reload = proxy.apply(desired({ identity: {}, ads: {} }, instances));
  for (let n = 50; n < 150; n += 1) await request(`r${n}`);
  await reload;
  await proxy.stop("keep");
  // nobody reads: HAProxy's lines wait in the pipe
  for (let n = 150; n < 200; n += 1) await request(`r${n}`);
  const next = createProxy(options);
  world.defer(() => next.stop("end"));
  await next.start(desired({ identity: {}, ads: {} }, instances));
  await eventually("every request has its line", () =>
    expect(records.map(({ requestId }) => requestId ?? "").sort()).toEqual([...sent.keys()].sort()),
  );
  expect(new Map(records.map((record) => [record.requestId ?? "", record.status]))).toEqual(sent);
  expect(records.find(({ requestId }) => requestId === "r1")).toMatchObject({
    service: "identity",
    instance: "host001:5000",
    method: "GET",
    path: `/a"b/r1`,
    termination: "--",
    retries: 0,
  });
  expect(records.find(({ requestId }) => requestId === "r3")).toMatchObject({
    service: 'no "r3"',
    instance: undefined,
  });
});
