// The smart client in front of a real HAProxy, as a command of the compiled binary, and under plain Node.
import { expect } from "bun:test";
import { join, resolve } from "node:path";
import { createSmartClient, SmartClientError } from "../core/client/index.ts";
import { backend, desired, instance, router } from "./haproxy-kit.ts";
import { BINARY, eventually, scenario } from "./harness.ts";

const clientOf = (port: number): ReturnType<typeof createSmartClient> =>
  createSmartClient({ router: `http://127.0.0.1:${port}` }, { environment: {} });

async function failureOf(call: PromiseLike<unknown>): Promise<SmartClientError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof SmartClientError) return error;
    throw error;
  }
  throw new Error("did not fail");
}

type Steady = {
  /** Ends it; how many of each were sent, and what failed. */
  stop(): Promise<{ gets: number; posts: number; failedGets: SmartClientError[]; failedPosts: SmartClientError[] }>;
};

/** Eight callers, half of them with GET, half with un-keyed POST whose body is never the same. */
function steady(client: ReturnType<typeof createSmartClient>): Steady {
  const tally = { gets: 0, posts: 0, failedGets: [] as SmartClientError[], failedPosts: [] as SmartClientError[] };
  const state = { running: true };
  const caller = async (index: number): Promise<void> => {
    for (let turn = 0; state.running; turn += 1) {
      if (index % 2 === 0) {
        tally.gets += 1;
        const { error } = await client.get("service://identity/teams").json().safe();
        if (error !== undefined) tally.failedGets.push(error);
      } else {
        tally.posts += 1;
        const { error } = await client
          .post("service://identity/teams", { body: `${index}-${turn}` })
          .json()
          .safe();
        if (error !== undefined) tally.failedPosts.push(error);
      }
      await Bun.sleep(1);
    }
  };
  const callers = Array.from({ length: 8 }, (_, index) => caller(index));
  return {
    async stop() {
      state.running = false;
      await Promise.all(callers);
      return tally;
    },
  };
}

/** Answers, and counts how often each body was posted. */
function counting(): { answer(request: Request): Promise<Response>; twice(): string[] } {
  const done = new Map<string, number>();
  return {
    async answer(request) {
      const id = request.method === "POST" ? await request.text() : "";
      if (id !== "") done.set(id, (done.get(id) ?? 0) + 1);
      return Response.json({});
    },
    twice: () => [...done].filter(([, times]) => times > 1).map(([id]) => id),
  };
}

scenario(
  "HAProxy's own answers are told from the service's: POST is repeated exactly when it never arrived",
  async (world) => {
    const { proxy, port } = await router(world);
    const a = backend(world, "a");
    const off = desired({ identity: {} }, [instance("identity", "host001:5000", a.port, { enabled: false })]);
    await proxy.start(off);
    const client = clientOf(port);

    expect(await failureOf(client.post("service://nobody/x", { json: {} }))).toMatchObject({
      kind: "unknown_service",
      sent: "no",
      status: 404,
    });
    const nowhere = await failureOf(client.post("service://identity/x", { json: {} }));
    expect(nowhere).toMatchObject({ kind: "no_instance", sent: "no", status: 503 });
    expect(nowhere.attempts).toHaveLength(3);
    expect(a.requests()).toBe(0);

    // it becomes usable between two attempts: the POST arrives, once
    const posted = client.post("service://identity/x", {
      json: {},
      retry: { attempts: 50, baseMs: 50, capMs: 50, budget: { reserve: 100 } },
    });
    await proxy.apply(desired({ identity: {} }, [instance("identity", "host001:5000", a.port)]));
    expect((await posted).status).toBe(200);
    expect(a.requests()).toBe(1);

    // the service's own 503, and its forged header, mean that it was there
    a.answer(() => new Response("", { status: 503, headers: { "smartstack-reply": "proxy" } }));
    expect(await failureOf(client.post("service://identity/x", { json: {} }))).toMatchObject({
      kind: "status",
      sent: "yes",
    });
    expect(a.requests()).toBe(2);
  },
);

scenario("instances come and go: no call fails, and no POST runs twice", async (world) => {
  const { proxy, port } = await router(world);
  const posts = counting();
  const [a, b] = ["a", "b"].map((name) => {
    const one = backend(world, name);
    one.answer((request) => posts.answer(request));
    return instance("identity", `${name}:5000`, one.port);
  });
  if (a === undefined || b === undefined) throw new Error("two instances");
  await proxy.start(desired({ identity: {} }, [a, b]));
  const load = steady(clientOf(port));
  for (const round of [1, 2]) {
    await proxy.apply(desired({ identity: {} }, [{ ...a, draining: true }, b]));
    await Bun.sleep(50);
    await proxy.apply(desired({ identity: {} }, [a, { ...b, enabled: false }]));
    await Bun.sleep(50);
    // a new service: HAProxy reloads
    await proxy.apply(desired({ identity: {}, [`other-${round}`]: {} }, [a, b]));
  }
  const { gets, posts: posted, failedGets, failedPosts } = await load.stop();
  expect([...failedGets, ...failedPosts].map(({ message }) => message)).toEqual([]);
  expect(Math.min(gets, posted)).toBeGreaterThan(100);
  expect(posts.twice()).toEqual([]);
});

scenario(
  "smartstack call: the body to standard output, the reason to standard error, and an exit code",
  async (world) => {
    const { proxy, port } = await router(world);
    const a = backend(world, "a");
    a.answer(async (request) => {
      const { pathname } = new URL(request.url);
      if (pathname === "/slow") await Bun.sleep(3_000);
      if (pathname === "/missing")
        return Response.json(
          { detail: "team 7 does not exist" },
          { status: 404, headers: { "content-type": "application/problem+json" } },
        );
      return Response.json({
        method: request.method,
        type: request.headers.get("content-type"),
        body: await request.text(),
      });
    });
    await proxy.start(desired({ identity: {} }, [instance("identity", "host001:5000", a.port)]));
    const call = (...args: string[]): ReturnType<typeof world.run> =>
      world.run([BINARY, "call", "--router", `http://127.0.0.1:${port}`, ...args]);

    expect(await call("service://identity/teams")).toEqual({
      code: 0,
      stdout: '{"method":"GET","type":null,"body":""}',
      stderr: "",
    });
    const put = await call("-X", "PUT", "-d", '{"a":1}', "-H", "X-A: b", "-v", "-i", "service://identity/teams");
    expect(put.code).toBe(0);
    expect(put.stdout).toMatch(/^HTTP 200\ncontent-length: \d+\n[^]*\n\n\{"method":"PUT","type":"application\/json"/);
    expect(put.stderr).toMatch(/> x-a: b\n[^]*\* attempt 1: 200, \d+ ms\n\* sent 1, 10 retries left/);

    const missing = await call("service://identity/missing");
    expect(missing).toEqual({
      code: 1,
      stdout: '{"detail":"team 7 does not exist"}',
      stderr: "smartstack: GET service://identity/missing answered 404: team 7 does not exist\n",
    });
    const unknown = await call("service://nobody/");
    expect([unknown.code, unknown.stderr]).toEqual([
      1,
      'smartstack: GET service://nobody/ went nowhere: no service "nobody" is registered (3 attempts)\n',
    ]);
    const late = await call("--timeout", "300ms", "service://identity/slow");
    expect([late.code, late.stderr]).toEqual([4, "smartstack: GET service://identity/slow timed out after 300 ms\n"]);
    const bad = await call("service://Identity/");
    expect(bad.code).toBe(2);
    expect(bad.stderr).toMatch(/"Identity" is not a service name/);
    const header = await call("-H", "X-A: b\nX-B: c", "service://identity/");
    expect(header.code).toBe(2);

    const alone = await world.run([
      BINARY,
      "call",
      "--router",
      `http://127.0.0.1:${await world.port()}`,
      "service://identity/",
    ]);
    expect(alone.code).toBe(3);
    expect(alone.stderr).toMatch(/found nobody at the router .*\nStart "smartstack dev" or "smartstack sidecar"/);
  },
);

scenario("HAProxy is killed and comes back under load: GET fails nowhere, and no POST runs twice", async (world) => {
  const { proxy, port } = await router(world);
  const posts = counting();
  const a = backend(world, "a");
  a.answer((request) => posts.answer(request));
  const state = desired({ identity: {} }, [instance("identity", "host001:5000", a.port)]);
  await proxy.start(state);
  const client = clientOf(port);
  const load = steady(client);
  await Bun.sleep(200);
  const { stdout } = Bun.spawnSync(["pgrep", "-o", "-f", `${world.directory}/haproxy/haproxy.cfg`]);
  process.kill(Number(stdout.toString().trim()), "SIGKILL");
  await Bun.sleep(200);
  await eventually("HAProxy runs again", async () => {
    await proxy.apply(state);
    await client.get("service://identity/teams");
  });
  await Bun.sleep(100);
  const { gets, failedGets, failedPosts } = await load.stop();
  expect(failedGets.map(({ message }) => message)).toEqual([]);
  expect(gets).toBeGreaterThan(50);
  // those under way when it died: nobody can know, and the error says so. At most two of each of the four callers: the worker
  // lives a moment longer than its master, and takes one more
  for (const error of failedPosts) expect(error).toMatchObject({ kind: "connection", sent: "maybe" });
  expect(failedPosts.length).toBeLessThanOrEqual(8);
  expect(posts.twice()).toEqual([]);
});

scenario("the tarball of the client installs, type-checks and runs under plain Node", async (world) => {
  const root = resolve(import.meta.dir, "../..");
  const packed = await world.run(["bash", join(root, "scripts/pack-client"), world.directory]);
  expect(packed).toMatchObject({ code: 0, stderr: "" });
  const tarball = /\S+\.tgz/.exec(packed.stdout)?.[0] ?? "";
  const installed = join(world.directory, "node_modules/smartstack");
  await world.run(["mkdir", "-p", installed]);
  await world.run(["tar", "xzf", tarball, "-C", installed, "--strip-components=1"]);
  await Bun.write(join(world.directory, "program.mjs"), NODE_PROGRAM);
  await Bun.write(join(world.directory, "typed.mts"), TYPED_PROGRAM);

  const flags = "--ignoreConfig --noEmit --strict --target esnext --module nodenext --lib esnext,dom,dom.asynciterable";
  const compiler = join(root, "node_modules/.bin/tsc");
  const checked = await world.run([process.execPath, "--bun", compiler, "typed.mts", ...flags.split(" ")]);
  expect([checked.code, checked.stdout]).toEqual([0, ""]);

  const { code, stdout, stderr } = await world.run(["node", "program.mjs"]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(stdout.trim().split("\n")).toEqual([
    'PUT {"a":1} identity',
    "response GET",
    "stream true",
    "dropped connection maybe 3",
    "stalled timeout yes 1",
    "503 status yes 3",
    "dropped POST connection maybe 1",
    "refused router_unreachable no",
    "queued 20 of 20",
  ]);
});

const TYPED_PROGRAM = `
import { createSmartClient, SmartClientError, type Attempt } from "smartstack/client";
const client = createSmartClient({ timeout: 500 });
const teams: { id: number }[] = await client.get("service://identity/teams").json<{ id: number }[]>();
const result = await client.get("service://identity/teams").text().safe();
const text: string = result.ok ? result.value : result.error.message;
const attempts: readonly Attempt[] = result.error instanceof SmartClientError ? result.error.attempts : [];
// @ts-expect-error a timeout is a number
client.extend({ timeout: "500" });
export { attempts, teams, text };
`;

const NODE_PROGRAM = `
import { createServer } from "node:http";
import { createServer as createListener } from "node:net";
import { createSmartClient } from "smartstack/client";
const server = createServer((request, response) => {
  if (request.url === "/dropped") return request.socket.destroy();
  if (request.url === "/stalled") return void response.writeHead(200, { "content-length": 10 }).write("x");
  if (request.url === "/503") return response.writeHead(503).end("no");
  let body = "";
  request.on("data", (data) => { body += data; });
  request.on("end", () => response.end(JSON.stringify({ method: request.method, body, service: request.headers["runscope-service"] })));
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const client = createSmartClient({ router: "http://127.0.0.1:" + server.address().port, timeout: 500, circuitBreaker: false });
const put = await client.put("service://identity/x", { json: { a: 1 } }).json();
console.log(put.method, put.body, put.service);
console.log("response", (await (await client.get("service://identity/x")).json()).method);
console.log("stream", (await new Response(await client.get("service://identity/x").stream()).text()).includes("GET"));
for (const path of ["dropped", "stalled", "503"]) {
  const { error } = await client.get("service://identity/" + path).text().safe();
  console.log(path, error.kind, error.sent, error.attempts.length);
}
const { error } = await client.post("service://identity/dropped", { body: "x" }).safe();
console.log("dropped POST", error.kind, error.sent, error.attempts.length);
const free = createListener();
await new Promise((resolve) => free.listen(0, "127.0.0.1", resolve));
const { port } = free.address();
await new Promise((resolve) => free.close(resolve));
const refused = await client.get("service://identity/", { router: "http://127.0.0.1:" + port }).safe();
console.log("refused", refused.error.kind, refused.error.sent);
const queued = await Promise.all(Array.from({ length: 20 }, () => client.get("service://identity/x", { bulkhead: 3 }).json().safe()));
console.log("queued", queued.filter(({ ok }) => ok).length, "of 20");
server.closeAllConnections();
server.close();
`;
