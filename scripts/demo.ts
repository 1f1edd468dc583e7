// The demo's story. Every line it prints is something that just happened; nothing here knows how the parts work inside.
import { copyFile, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs, styleText } from "node:util";
import { BINARY, eventually, flags, freePort, processesOf, runToEnd, spawn, type Spawned } from "../src/e2e/process.ts";
import { startTraffic, type Tally, type Traffic } from "./demo-traffic.ts";

const STEADY_MS = 2_000;
const DASHBOARD = resolve(import.meta.dir, "../fixtures/demo/dashboard.service.ts");

const { values: wanted } = parseArgs({
  options: { once: { type: "boolean", default: false }, "free-ports": { type: "boolean", default: false } },
});

const directory = await mkdtemp(join(tmpdir(), "smartstack-demo-"));
const started: Spawned[] = [];
/** Those that the story kills itself. */
const killed = new Set<Spawned>();
/** Rejects when a program ends that should not. */
const lost = Promise.withResolvers<never>();
lost.promise.catch(() => undefined);
let traffic: Traffic | undefined;
let steps = 0;
let ending: Promise<void> | undefined;

/** Ends everything, last started first, and leaves no file. Safe to call twice. */
function cleanUp(): Promise<void> {
  ending ??= (async () => {
    await traffic?.stop();
    for (const program of started.toReversed()) await program.stop();
    // HAProxy outlives a sidecar that was killed
    for (const pid of await processesOf(directory)) process.kill(pid, "SIGTERM");
    await rm(directory, { recursive: true, force: true });
  })();
  return ending;
}

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    console.log("\nstopping");
    void cleanUp().then(() => process.exit(wanted.once ? 1 : 0));
  });
}

try {
  process.exitCode = await tell();
} catch (error) {
  console.error(styleText("red", `demo: ${error instanceof Error ? error.message : String(error)}`));
  for (const program of started) console.error(`--- ${program.name}\n${lastLines(program.output())}`);
  process.exitCode = 1;
} finally {
  await cleanUp();
}

async function tell(): Promise<number> {
  const port = (usual: number): Promise<number> => (wanted["free-ports"] ? freePort() : Promise.resolve(usual));
  const [atlasPort, routerPort, adminPort] = [await port(7400), await port(4000), await port(4001)];
  const atlas = `http://127.0.0.1:${atlasPort}`;
  const router = `http://127.0.0.1:${routerPort}`;
  const admin = `http://127.0.0.1:${adminPort}`;
  const state = join(directory, "host");
  const socket = join(state, "sidecar.sock");

  step("Atlas, the registry");
  start("Atlas", ["atlas"], { listen: `127.0.0.1:${atlasPort}`, "data-dir": join(directory, "atlas") });
  await ready(`${atlas}/readyz`);
  note(`${atlas}, one SQLite file`);

  step("Sidecar, with HAProxy");
  start("sidecar", ["sidecar", "--stop-haproxy"], {
    atlas,
    host: "localhost",
    bind: `127.0.0.1:${routerPort}`,
    admin: `127.0.0.1:${adminPort}`,
    "state-dir": state,
  });
  await ready(`${admin}/readyz`);
  note(`${router}, where every request of this host goes`);

  step("Two new services");
  for (const name of ["identity", "dashboard"]) {
    const port = wanted["free-ports"] ? flags({ port: await freePort() }) : [];
    const made = await smartstack(["gen", name, "--dir", join(directory, name), "--atlas", atlas, ...port]);
    note(made.stdout.trim().replaceAll("\n", "\n   "));
  }
  await copyFile(DASHBOARD, join(directory, "dashboard", "service.ts"));
  note("dashboard's handler now asks service://identity/teams");

  step("identity ×2, dashboard ×1");
  const identityPort = await portOf("identity");
  const dashboardPort = await portOf("dashboard");
  const twinPort = wanted["free-ports"] ? await freePort() : dashboardPort + 1;
  const serve = (service: string, instancePort: number): Spawned =>
    start(`${service}:${instancePort}`, ["serve", join(directory, service)], {
      port: String(instancePort),
      sidecar: socket,
      "log-dir": join(directory, "log"),
    });
  const first = serve("identity", identityPort);
  serve("identity", twinPort);
  serve("dashboard", dashboardPort);
  await usable(admin, "identity", 2);
  await usable(admin, "dashboard", 1);
  for (const instancePort of [identityPort, twinPort]) await addTeam(router, `localhost:${instancePort}`);
  for (const [service, path] of [
    ["identity", "/teams"],
    ["dashboard", "/"],
  ] as const) {
    const response = await fetch(`${router}${path}`, { headers: { "runscope-service": service } });
    note(`GET service://${service}${path} → ${response.status} ${(await response.text()).slice(0, 100)}`);
    if (response.status !== 200) throw new Error(`service://${service}${path} does not answer`);
  }

  step("Steady traffic, and things going wrong");
  traffic = startTraffic(router);
  await during("nothing happens", () => Bun.sleep(STEADY_MS));
  await during(`kill -9 identity:${identityPort}`, async () => {
    killed.add(first);
    first.signal("SIGKILL");
    await first.exited;
    await Bun.sleep(STEADY_MS);
  });
  await during(`identity:${identityPort} is back`, async () => {
    serve("identity", identityPort);
    await usable(admin, "identity", 2);
    await addTeam(router, `localhost:${identityPort}`);
  });
  for (const command of ["disable", "enable"]) {
    await during(`${command} identity:${twinPort}`, async () => {
      const done = await smartstack([command, "identity", `localhost:${twinPort}`, "--wait", "--atlas", atlas]);
      await Bun.sleep(STEADY_MS / 2);
      return done.stdout.trim();
    });
  }

  step("The count");
  await traffic.stop();
  const agreed = await count(traffic, join(state, "access.log"), admin);

  step("Try by hand");
  if (wanted.once) {
    note("run scripts/demo without --once, and it stays up");
    return agreed ? 0 : 1;
  }
  traffic = startTraffic(router);
  const binary = "dist/smartstack";
  for (const line of [
    `curl --noproxy '*' -H 'Runscope-Service: identity' ${router}/teams`,
    `${binary} call --router ${router} service://dashboard/`,
    `${binary} status --atlas ${atlas}`,
    `${binary} why identity --admin 127.0.0.1:${adminPort}`,
    `${binary} disable identity localhost:${twinPort} --wait --atlas ${atlas}`,
    `kill -9 ${started.find(({ name }) => name === "sidecar")?.pid ?? ""}    # the sidecar: requests go on`,
  ]) {
    note(line);
  }
  note("Ctrl-C ends all of it; traffic goes on until then");
  await new Promise(() => undefined);
  return 0;
}

/** What a program said last, without the lines of its access log. */
function lastLines(output: string): string {
  return output
    .split("\n")
    .filter((line) => !line.includes('"requestId":"demo-'))
    .slice(-20)
    .join("\n");
}

function step(title: string): void {
  steps += 1;
  console.log(styleText("bold", `${steps}  ${title}`));
}

function note(text: string): void {
  console.log(`   ${text}`);
}

function start(name: string, args: readonly string[], options: Readonly<Record<string, string>>): Spawned {
  const program = spawn([BINARY, ...args, ...flags(options)], { name, cwd: directory });
  started.push(program);
  void watchOver(program);
  return program;
}

async function watchOver(program: Spawned): Promise<void> {
  const code = await program.exited;
  if (ending === undefined && !killed.has(program)) lost.reject(new Error(`${program.name} ended with ${code}`));
}

async function smartstack(args: readonly string[]): Promise<{ stdout: string }> {
  const done = await runToEnd([BINARY, ...args], { cwd: directory });
  if (done.code !== 0)
    throw new Error(`smartstack ${args.join(" ")} ended with ${done.code}: ${done.stderr || done.stdout}`);
  return done;
}

/** Waits for something, and fails at once when a program ends that should not. */
function waitFor(what: string, check: () => Promise<void>): Promise<void> {
  return Promise.race([eventually(what, check, 15_000), lost.promise]);
}

async function ready(url: string): Promise<void> {
  await waitFor(`${url} is ready`, async () => {
    const response = await fetch(url);
    await response.text();
    if (response.status !== 200) throw new Error(`status ${response.status}`);
  });
}

async function usable(admin: string, service: string, instances: number): Promise<void> {
  await waitFor(`${service} has ${instances} usable instances`, async () => {
    const why = (await (await fetch(`${admin}/v1/why/${service}`)).json()) as { usable?: number };
    if (why.usable !== instances) throw new Error(JSON.stringify(why));
  });
}

/** Gives one instance of identity something to tell: each keeps its teams in memory. The pin is for canaries and tests. */
async function addTeam(router: string, instance: string): Promise<void> {
  // a pin follows HAProxy's verdict on a server within a tenth of a second
  await waitFor(`${instance} takes a team`, async () => {
    const response = await fetch(`${router}/teams/core`, {
      method: "PUT",
      headers: { "runscope-service": "identity", "smartstack-instance": instance, "content-type": "application/json" },
      body: JSON.stringify({ name: "Core" }),
    });
    if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`);
  });
}

async function portOf(service: string): Promise<number> {
  const manifest = await readFile(join(directory, service, "smartstack.yaml"), "utf8");
  return Number(/^port: *(\d+)/m.exec(manifest)?.[1]);
}

/** Does something while traffic flows, and prints what it cost. */
async function during(title: string, happen: () => Promise<string | void>): Promise<void> {
  const before = traffic?.total() ?? { requests: 0, failed: 0 };
  const said = await happen();
  const after = traffic?.total() ?? before;
  const failed = after.failed - before.failed;
  const line = `${title.padEnd(28)} ${failed} failed of ${number(after.requests - before.requests)}`;
  note(`${failed === 0 ? line : styleText("red", line)}${said ? `   (${said})` : ""}`);
}

/** Prints the tally and holds it against HAProxy's own log. True when nothing failed and both agree. */
async function count({ tallies }: Traffic, accessLog: string, admin: string): Promise<boolean> {
  const sum = (of: (tally: Tally) => number): number => tallies.reduce((total, tally) => total + of(tally), 0);
  const [requests, sends, closed] = [sum((t) => t.requests), sum((t) => t.sends), sum((t) => t.closed)];
  for (const tally of tallies) {
    const repeated = tally.sends - tally.requests;
    note(`${tally.name.padEnd(15)} ${number(tally.requests)} sent, ${repeated} repeated, ${tally.failed} failed`);
    for (const failure of tally.failures.slice(0, 5)) note(`  ${failure}`);
  }
  // HAProxy hands its lines over when a request has ended; the last ones may still be on their way
  const lines = await eventually(
    "HAProxy's log has every request",
    async () => {
      const found = await logged(accessLog);
      if (found.length < sends - closed) throw new Error(`${found.length} lines for ${sends - closed}`);
      return found;
    },
    2_000,
  ).catch(() => logged(accessLog));
  const bad = lines.filter(({ status }) => status !== 200).length;
  const missing = sends - closed - lines.length;
  const unexplained = sends - requests - closed - bad;
  const dropped = await droppedLines(admin);
  // a line that HAProxy dropped may have been of any request
  const agrees = missing >= 0 && missing <= dropped && unexplained >= 0 && unexplained <= missing;
  note(
    `HAProxy's log   ${number(lines.length)} lines, ${bad} of them not 200, ${closed} connections closed without an answer` +
      (dropped === 0 ? ": " : `, ${dropped} lines dropped by HAProxy itself: `) +
      (agrees ? "in agreement" : styleText("red", `but ${sends} were sent for ${requests} requests`)),
  );
  const failed = sum((t) => t.failed);
  note(styleText(failed === 0 && agrees ? "green" : "red", `${number(requests)} sent, ${failed} failed`));
  return failed === 0 && agrees;
}

/** How many lines HAProxy did not write, because another of its threads was at it (docs/decisions/0002). */
async function droppedLines(admin: string): Promise<number> {
  const metrics = await (await fetch(`${admin}/metrics`)).text();
  const counter = /^haproxy_process_dropped_logs_total (\d+)$/m.exec(metrics);
  if (counter === null) throw new Error("HAProxy's metrics have no haproxy_process_dropped_logs_total");
  return Number(counter[1]);
}

function number(value: number): string {
  return value.toLocaleString("en");
}

/** HAProxy's lines about the traffic's own requests: what dashboard asks identity carries the same id, but another service. */
async function logged(path: string): Promise<{ status: number }[]> {
  const text = await readFile(path, "utf8").catch(() => "");
  return text
    .split("\n")
    .filter((line) => line.includes('"demo-'))
    .map((line) => JSON.parse(line) as { status: number; requestId: string; service: string })
    .filter(({ requestId, service }) => requestId.startsWith(`demo-${service}-`));
}
