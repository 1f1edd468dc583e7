// `smartstack serve` and `smartstack test` as their users have them: the compiled file, a directory, nothing installed.
import { expect } from "bun:test";
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import { BINARY, eventually, scenario, type Spawned, type World } from "./harness.ts";

const SERVICE = `
import { Hono } from "hono";
import { notFound, smartService } from "smartstack";
import { smartClient } from "smartstack/client";
import { z } from "zod";
import { defaults } from "./defaults.ts";

const Team = z.object({ id: z.string(), name: z.string() });
export default smartService("identity", { defaults }, (app) => {
  app.get("/teams/:id", { returns: Team }, ({ params, logger }) => {
    if (params.id === "0") throw notFound("team 0 does not exist");
    logger.info("asked for a team");
    return { id: params.id, name: app.config.NAME };
  });
  app.get("/identity-of-classes", () => ({ hono: app.hono instanceof Hono, zod: Team instanceof z.ZodType, client: typeof smartClient.get }));
  app.get("/slow", async () => {
    await Bun.sleep(400);
    return "done";
  });
  app.get("/boom", () => {
    throw new Error("boom " + app.config.API_KEY);
  });
  app.get("/key", () => app.config.API_KEY.reveal().length);
  app.get("/throw-later", () => {
    setTimeout(() => {
      throw new Error("outside of a request");
    }, 1);
    return "soon";
  });
});
`;
const DEFAULTS = `
import { secret } from "smartstack";
export const defaults = { NAME: "core", PAGE_SIZE: 20, API_KEY: secret("laptop") };
`;
const MANIFEST = "name: identity\nowner: core\n";

async function write(world: World, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    const path = join(world.directory, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, text);
  }
}

const identity = {
  "identity/smartstack.yaml": MANIFEST,
  "identity/defaults.ts": DEFAULTS,
  "identity/service.ts": SERVICE,
};

/** Alone: no sidecar of this machine is asked, no log of it written. */
const alone = (world: World): readonly string[] => [
  "--sidecar",
  join(world.directory, "none.sock"),
  "--log-dir",
  join(world.directory, "log"),
];

type Served = { readonly program: Spawned; readonly url: string; readonly port: number };

async function serve(
  world: World,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Served> {
  const port = await world.port();
  const program = world.spawn([BINARY, "serve", ...args, "--port", String(port), ...alone(world)], { env });
  const url = `http://127.0.0.1:${port}`;
  await eventually("the service is ready", async () => expect((await fetch(`${url}/readyz`)).status).toBe(200));
  return { program, url, port };
}

/** What a peer without fetch's manners gets. */
function rawRequest(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = connect(port, "127.0.0.1", () => socket.write(text));
    socket.on("data", (data) => {
      answer += data.toString();
    });
    socket.on("end", () => resolve(answer));
    socket.on("error", reject);
  });
}

const accessLog = (world: World): Promise<string> => readFile(join(world.directory, "log/identity.access.log"), "utf8");

scenario("a service in an empty directory runs from the compiled file alone", async (world) => {
  await write(world, identity);
  const { program, url, port } = await serve(world, ["identity"], { NAME: "money" });
  expect(existsSync(join(world.directory, "node_modules"))).toBe(false);
  expect(await (await fetch(`${url}/teams/7`)).json()).toEqual({ id: "7", name: "money" });
  expect(await (await fetch(`${url}/teams/0`)).json()).toMatchObject({ status: 404, code: "not_found" });
  expect(await (await fetch(`${url}/identity-of-classes`)).json()).toEqual({
    hono: true,
    zod: true,
    client: "function",
  });
  // as HAProxy's option httpchk asks: HTTP/1.0, no Host
  expect(await rawRequest(port, "GET /readyz HTTP/1.0\r\n\r\n")).toStartWith("HTTP/1.1 200");
  expect(await rawRequest(port, "GET /teams/8 HTTP/1.0\r\n\r\n")).toContain('{"id":"8","name":"money"}');
  expect(await (await fetch(`${url}/metrics`)).text()).toContain('route="/teams/:id",status="200"} 2');
  expect(await program.stop()).toBe(0);
  const lines = (await accessLog(world))
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(lines.map(({ path, status }) => [path, status])).toEqual([
    ["/teams/7", 200],
    ["/teams/0", 404],
    ["/identity-of-classes", 200],
    ["/teams/8", 200],
  ]);
  expect(await readFile(join(world.directory, "log/identity.error.log"), "utf8")).toContain("asked for a team");
});

scenario("a service's tests run from the compiled file alone", async (world) => {
  const testFile = (expected: string): string => `
import { expect, test } from "bun:test";
import { testService } from "smartstack/service";
import service from "./service.ts";
test("a team", async () => {
  const identity = testService(service);
  expect(await (await identity.request("/teams/7")).json()).toEqual({ id: "7", name: "${expected}" });
  expect(await (await identity.request("/identity-of-classes")).json()).toEqual({ hono: true, zod: true, client: "function" });
  await identity.stop();
});
`;
  await write(world, { ...identity, "identity/service.test.ts": testFile("core") });
  const passed = await world.run([BINARY, "test", "identity"]);
  expect(passed.stderr).toContain("1 pass");
  expect(passed.code).toBe(0);
  await write(world, { "identity/service.test.ts": testFile("somebody else") });
  expect((await world.run([BINARY, "test"], { cwd: join(world.directory, "identity") })).code).toBe(1);
  expect(await world.run([BINARY, "test", "nowhere"])).toMatchObject({ code: 2 });
});

scenario("the service of docs/service.md passes its tests, and runs", async (world) => {
  const page = await readFile(join(import.meta.dir, "../../docs/service.md"), "utf8");
  const files = [...page.matchAll(/^```(?:ts|yaml)\n(?:\/\/|#) (identity\/\S+)\n([\s\S]*?)^```$/gm)];
  await write(world, Object.fromEntries(files.map(([, name = "", text = ""]) => [name, text])));
  expect(files.length).toBe(4);
  expect(await world.run([BINARY, "test", "identity"])).toMatchObject({ code: 0 });
  const { url } = await serve(world, ["identity"]);
  expect(await (await fetch(`${url}/teams`)).json()).toEqual([]);
  const printed = await world.run([BINARY, "serve", "identity", "--set", "GREETING=hi", "--print-config"], {
    env: { PAGE_SIZE: "50" },
  });
  expect(page).toContain(printed.stdout.trim());
});

scenario("a hono app, a fetch handler and a file without smartstack.yaml are served as they are", async (world) => {
  await write(world, {
    "hono/smartstack.yaml": "name: plain\nentry: app.ts\n",
    "hono/app.ts":
      'import { Hono } from "hono";\nexport default new Hono().get("/hi/:name", (c) => c.text(c.req.param("name")));\n',
    "single.ts": "export default (request: Request) => new Response(new URL(request.url).pathname);\n",
  });
  const hono = await serve(world, ["hono"]);
  expect(await (await fetch(`${hono.url}/hi/ann`)).text()).toBe("ann");
  const single = await serve(world, ["single.ts", "--name", "single"]);
  expect(await (await fetch(`${single.url}/x`)).text()).toBe("/x");
  expect((await world.run([BINARY, "serve", "single.ts", ...alone(world)])).stderr).toContain("has no name");
});

type Refused = { files?: Record<string, string>; args?: readonly string[]; code: number; says: readonly string[] };
const service = (body: string): Record<string, string> => ({ ...identity, "identity/service.ts": body });

const REFUSED: Readonly<Record<string, Refused>> = {
  "no such directory": { args: ["nowhere"], code: 2, says: ["there is no nowhere"] },
  "no smartstack.yaml": {
    files: { "identity/service.ts": SERVICE },
    code: 2,
    says: ["there is no smartstack.yaml", "smartstack gen"],
  },
  "bad smartstack.yaml": {
    files: { ...identity, "identity/smartstack.yaml": "name: identity\n\nprot: 1\n" },
    code: 2,
    says: ["identity/smartstack.yaml:3: prot: is not a known field"],
  },
  "no entry": {
    files: { ...identity, "identity/smartstack.yaml": "name: identity\nentry: other.ts\n" },
    code: 2,
    says: ["other.ts", "entry: FILE"],
  },
  "two names": {
    files: { ...identity, "identity/smartstack.yaml": "name: other\n" },
    code: 2,
    says: ["smartstack.yaml says other, service.ts says identity"],
  },
  "a throwing file": {
    files: service('throw new Error("not today");'),
    code: 1,
    says: ["could not be loaded: not today", "service.ts:1"],
  },
  "a syntax error": { files: service("export default {"), code: 1, says: ["could not be loaded"] },
  "an unknown import": { files: service('import "left-pad";'), code: 1, says: ["could not be loaded", "left-pad"] },
  "a wrong export": {
    files: service("export default 7;"),
    code: 1,
    says: ["is no service: its default export is a number", "export default smartService("],
  },
  "no export": { files: service("export const x = 1;"), code: 1, says: ["its default export is missing"] },
  "a throwing definition": {
    files: service(
      'import { smartService } from "smartstack";\nexport default smartService("identity", {}, () => { throw new Error("no database"); });',
    ),
    code: 1,
    says: ["identity could not be started: no database", "service.ts:2"],
  },
  "bad settings": {
    args: ["identity", "--set", "PAGE_SIZE=many", "--set", "COLOUR=red"],
    code: 2,
    says: [
      "2 values are not usable",
      "PAGE_SIZE (flag --set): must be a number",
      "COLOUR (flag --set): is not a key of this service",
    ],
  },
  "no settings file": { args: ["identity", "--settings", "none.yaml"], code: 2, says: ["none.yaml cannot be read"] },
  "a log directory that is none": {
    args: ["identity", "--log-dir", "/dev/null/log"],
    code: 1,
    says: ["the log /dev/null/log/identity.error.log cannot be written", "--log-dir"],
  },
  "an address of another machine": {
    args: ["identity", "--listen", "192.0.2.1"],
    code: 1,
    says: ["cannot listen on port"],
  },
  "a command without a name": { args: ["--", "true"], code: 2, says: ["a command needs a name: --name NAME"] },
  "no command behind --": { args: ["--name", "x", "--"], code: 2, says: ["there is no command behind --"] },
  "two names, one of them a flag": {
    args: ["identity", "--name", "other"],
    code: 2,
    says: ["smartstack.yaml says identity, --name says other"],
  },
  "a flag that would do nothing": {
    args: ["identity", "--healthcheck", "/up"],
    code: 2,
    says: ["--healthcheck: only for a command behind --"],
  },
  "a command that is not there": {
    args: ["--name", "x", "--", "no-such-program"],
    code: 1,
    says: ["no-such-program could not be started"],
  },
};

for (const [what, { files = identity, args = ["identity"], code, says }] of Object.entries(REFUSED)) {
  scenario(`refused before anything runs: ${what}`, async (world) => {
    await write(world, files);
    const [before, after] = args.includes("--")
      ? [args.slice(0, args.indexOf("--")), args.slice(args.indexOf("--"))]
      : [args, []];
    const logDir = before.includes("--log-dir") ? [] : ["--log-dir", join(world.directory, "log")];
    const finished = await world.run([BINARY, "serve", ...before, "--sidecar", "/none.sock", ...logDir, ...after]);
    for (const text of says) expect(finished.stderr).toContain(text);
    expect(finished.code).toBe(code);
  });
}

scenario("a busy port is told, with what to do, and nothing is left behind", async (world) => {
  await write(world, identity);
  const { url, port } = await serve(world, ["identity"]);
  const second = await world.run([BINARY, "serve", "identity", "--port", String(port), ...alone(world)]);
  expect(second.code).toBe(1);
  expect(second.stderr).toContain(`port ${port} of 127.0.0.1 is in use`);
  expect(second.stderr).toContain("--port 0");
  expect((await fetch(`${url}/livez`)).status).toBe(200);
});

scenario("--print-config shows each value's source; a planted secret appears nowhere", async (world) => {
  const planted = "pl4nt3d-s3cr3t";
  await write(world, { ...identity, "settings.yaml": "PAGE_SIZE: 50\n" });
  const env = { API_KEY: planted, NAME: "money" };
  const args = ["identity", "--settings", "settings.yaml", "--set", "NAME=flag"];
  const printed = await world.run([BINARY, "serve", ...args, "--print-config"], { env });
  expect(printed.code).toBe(0);
  expect(printed.stdout.split("\n").map((line) => line.split(/ {2,}/))).toEqual([
    ["KEY", "VALUE", "SOURCE"],
    ["NAME", "flag", "flag --set"],
    ["PAGE_SIZE", "50", "settings.yaml:1"],
    ["API_KEY", "[secret]", "environment API_KEY"],
    [""],
  ]);
  const { program, url } = await serve(world, [...args, "--log-level", "trace"], env);
  expect(await (await fetch(`${url}/key`)).json()).toBe(planted.length);
  const answers = await Promise.all(
    ["/boom", "/environment", "/openapi.json", "/metrics", "/healthcheck"].map(async (path) =>
      (await fetch(url + path)).text(),
    ),
  );
  await program.stop();
  const logs = await Promise.all(
    ["access", "error"].map((kind) => readFile(join(world.directory, `log/identity.${kind}.log`), "utf8")),
  );
  expect([...answers, ...logs, program.output(), printed.stdout].filter((text) => text.includes(planted))).toEqual([]);
  expect(logs[1]).toContain("boom [secret]");
});

scenario("SIGTERM lets requests under way finish, tells keep-alive clients to go, and exits 0", async (world) => {
  await write(world, identity);
  const { program, url } = await serve(world, ["identity"]);
  const slow = fetch(`${url}/slow`);
  await eventually("the request is under way", async () =>
    expect(await (await fetch(`${url}/metrics`)).text()).toContain("http_requests_in_flight 1"),
  );
  program.signal("SIGTERM");
  const closing = await eventually("answers close their connection", async () => {
    const response = await fetch(`${url}/teams/1`);
    expect(response.headers.get("connection")).toBe("close");
    return response;
  });
  expect(closing.status).toBe(200);
  expect((await fetch(`${url}/readyz`)).status).toBe(503);
  expect((await slow).status).toBe(200);
  expect(await program.exited).toBe(0);
  expect(await accessLog(world)).toContain('"path":"/slow","status":200');
});

scenario("a second SIGTERM ends it at once", async (world) => {
  await write(
    world,
    service(
      'import { smartService } from "smartstack";\nexport default smartService("identity", {}, (app) => app.get("/hang", () => new Promise(() => undefined)));',
    ),
  );
  const { program, url } = await serve(world, ["identity"]);
  const hung = fetch(`${url}/hang`).then(
    () => "answered",
    () => "cut",
  );
  await eventually("the request is under way", async () =>
    expect(await (await fetch(`${url}/metrics`)).text()).toContain("http_requests_in_flight 1"),
  );
  program.signal("SIGTERM");
  await eventually("it drains", async () => expect((await fetch(`${url}/readyz`)).status).toBe(503));
  program.signal("SIGTERM");
  expect(await program.exited).toBe(143);
  expect(await hung).toBe("cut");
});

scenario("what a service throws outside of a request ends it, and the log says what it was", async (world) => {
  await write(world, identity);
  const { program, url } = await serve(world, ["identity"]);
  await fetch(`${url}/throw-later`);
  expect(await program.exited).toBe(1);
  expect(await readFile(join(world.directory, "log/identity.error.log"), "utf8")).toContain("outside of a request");
});

scenario("SIGHUP under load opens the logs anew; no line is lost or torn", async (world) => {
  await write(world, identity);
  const { program, url } = await serve(world, ["identity"]);
  let sent = 0;
  const over = new AbortController();
  const load = Promise.all(
    [0, 1, 2, 3].map(async () => {
      while (!over.signal.aborted) {
        sent += 1;
        await (await fetch(`${url}/teams/${sent}`)).text();
      }
    }),
  );
  const path = join(world.directory, "log/identity.access.log");
  for (let round = 0; round < 5; round += 1) {
    await eventually("lines are written", async () => expect((await readFile(path, "utf8")).length).toBeGreaterThan(0));
    await rename(path, `${path}.moved.${round}`);
    program.signal("SIGHUP");
    await eventually("the log is there again", () => expect(existsSync(path)).toBe(true));
  }
  over.abort();
  await load;
  await program.stop();
  const texts = await Promise.all(
    ["", ...[0, 1, 2, 3, 4].map((round) => `.moved.${round}`)].map((end) => readFile(path + end, "utf8")),
  );
  const paths = texts.flatMap((text) =>
    text
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => (JSON.parse(line) as { path: string }).path),
  );
  expect(paths.length).toBe(sent);
  expect(new Set(paths).size).toBe(sent);
});

/** A program that knows nothing of smartstack but PORT. */
const APP = `
const behave = process.env.BEHAVE;
const server = Bun.serve({ port: Number(process.env.PORT), hostname: "127.0.0.1", fetch: (request) => {
  if (request.url.endsWith("/die")) setTimeout(() => process.exit(7), 10);
  return Response.json({ port: process.env.PORT, realm: process.env.SMARTSTACK_REALM });
} });
console.log("app listens");
process.on("SIGTERM", () => { console.log("app ends"); process.exit(behave === "five" ? 5 : 0); });
`;
const app = (world: World): readonly string[] => ["--", "env", "BUN_BE_BUN=1", BINARY, join(world.directory, "app.ts")];

async function serveApp(world: World, env: Readonly<Record<string, string>> = {}): Promise<Served> {
  await write(world, { "app.ts": APP });
  const port = await world.port();
  const program = world.spawn(
    [BINARY, "serve", "--name", "billing", "--port", String(port), ...alone(world), ...app(world)],
    { env },
  );
  const url = `http://127.0.0.1:${port}`;
  await eventually("the program is found to answer", () =>
    expect(program.output()).toContain(`billing answers on port ${port}`),
  );
  return { program, url, port };
}

scenario("any command is served: its port in PORT, its output passed on, its end awaited", async (world) => {
  const { program, url, port } = await serveApp(world);
  expect(await (await fetch(url)).json()).toEqual({ port: String(port), realm: "local" });
  expect(await program.stop()).toBe(0);
  expect(program.output()).toContain("app listens");
  expect(program.output()).toContain("app ends");
  expect(fetch(url)).rejects.toThrow();
});

scenario("kill -9 of serve, or of serve --dev, takes along what it runs", async (world) => {
  const command = await serveApp(world);
  command.program.signal("SIGKILL");
  await eventually("the command is gone", () => expect(fetch(command.url)).rejects.toThrow());
  await write(world, identity);
  const dev = await serve(world, ["identity", "--dev"]);
  dev.program.signal("SIGKILL");
  await eventually("the service is gone", () => expect(fetch(dev.url)).rejects.toThrow());
});

scenario("the status of a command is the status of serve", async (world) => {
  const dying = await serveApp(world);
  await fetch(`${dying.url}/die`);
  expect(await dying.program.exited).toBe(7);
  expect(dying.program.output()).toContain("billing ended by itself with code 7");
  const other = await serveApp(world, { BEHAVE: "five" });
  expect(await other.program.stop()).toBe(5);
});

scenario("--dev starts the service again when a file changes, and survives one that is broken", async (world) => {
  await write(world, identity);
  const { program, url } = await serve(world, ["identity", "--dev"]);
  const name = async (): Promise<unknown> => ((await (await fetch(`${url}/teams/1`)).json()) as { name: string }).name;
  expect(await name()).toBe("core");
  await write(world, { "identity/defaults.ts": DEFAULTS.replace("core", "changed") });
  await eventually("the change is served", async () => expect(await name()).toBe("changed"));
  await write(world, { "identity/service.ts": "export default {" });
  await eventually("the mistake is told", () => expect(program.output()).toContain("could not be loaded"));
  await write(world, { "identity/service.ts": SERVICE });
  await eventually("it is served again", async () => expect(await name()).toBe("changed"));
  expect(await program.stop()).toBe(0);
  expect(fetch(url)).rejects.toThrow();
});

scenario("a service whose start waits for ever is still stopped by one SIGTERM", async (world) => {
  await write(world, {
    "slow/smartstack.yaml": "name: slow\n",
    "slow/service.ts": `
import { smartService } from "smartstack";
export default smartService("slow", {}, async () => {
  await Bun.write("started", "");
  await new Promise(() => {});
});
`,
  });
  const program = world.spawn([BINARY, "serve", "slow", ...alone(world)], { cwd: world.directory });
  await eventually("it has begun", async () => expect(existsSync(join(world.directory, "started"))).toBe(true));
  expect(await program.stop()).toBe(0);
});

scenario("dev: true in a file starts one service, not one in another without end", async (world) => {
  await write(world, { ...identity, "dev.yaml": "dev: true\n" });
  const { program, url } = await serve(world, ["identity", "--config", join(world.directory, "dev.yaml")]);
  const { process: served } = (await (await fetch(`${url}/environment`)).json()) as { process: { pid: number } };
  const status = await readFile(`/proc/${served.pid}/status`, "utf8");
  expect(status).toContain(`PPid:\t${program.pid}\n`);
  await program.stop();
});
