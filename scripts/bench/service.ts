// P9 and P11. P9: requests per second of one small route, the framework (dist/smartstack serve) v bare hono, access log on and
// off. P11: `smartstack --version`, and `serve` from the command to /readyz 200. `bun scripts/bench/service.ts [ROUNDS]` prints one
// line of JSON each. Servers take turns, second by second, and the ratio is that of processor time per request: on a machine
// with other work it stays, when requests per second go up and down.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { freePort } from "../../src/e2e/process.ts";

const BINARY = process.env.SMARTSTACK_BINARY ?? resolve(import.meta.dir, "../../dist/smartstack");
const ROOT = resolve(import.meta.dir, "../..");
const rounds = Number(process.argv[2] ?? "5");
const CONNECTIONS = 32;
const ROUND_MS = 1_000;

const directory = await mkdtemp(join(tmpdir(), "smartstack-bench-"));
const children: Bun.Subprocess[] = [];

type Server = {
  readonly name: string;
  readonly port: number;
  readonly pid: number;
  readonly perSecond: number[];
  readonly cpuMicros: number[];
};

async function start(name: string, command: (port: number) => readonly string[]): Promise<Server> {
  const port = await freePort();
  const child = Bun.spawn([...command(port)], {
    cwd: directory,
    env: { ...process.env, PORT: String(port) },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "inherit",
  });
  children.push(child);
  await untilAnswers(`http://127.0.0.1:${port}/teams/7`);
  return { name, port, pid: child.pid, perSecond: [], cpuMicros: [] };
}

async function untilAnswers(url: string): Promise<void> {
  for (;;) {
    const status = await fetch(url, { keepalive: false }).then(
      (response) => response.status,
      () => 0,
    );
    if (status === 200) return;
    await Bun.sleep(1);
  }
}

/** Processor time of a process so far, in microseconds: user and system, in ticks of 10 ms. */
async function cpuOf(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, "utf8")).replace(/^.*\) /, "").split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10_000;
}

/** As many requests as come back, one at a time on each connection, by raw sockets: a client that costs less than the server. */
async function load(port: number, ms: number): Promise<number> {
  let answers = 0;
  let over = false;
  const request = Buffer.from(`GET /teams/7 HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUser-Agent: bench\r\n\r\n`);
  const sockets = await Promise.all(
    Array.from({ length: CONNECTIONS }, () =>
      Bun.connect({
        hostname: "127.0.0.1",
        port,
        socket: {
          open: (socket) => void socket.write(request),
          data(socket) {
            answers += 1;
            if (!over) socket.write(request);
          },
        },
      }),
    ),
  );
  await Bun.sleep(ms);
  over = true;
  for (const socket of sockets) socket.end();
  return answers;
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
const round = (value: number, digits = 0): number => Number(value.toFixed(digits));

async function measureP9(): Promise<void> {
  await writeFile(
    join(directory, "bare.ts"),
    `import { Hono } from ${JSON.stringify(join(ROOT, "node_modules/hono/dist/index.js"))};
const app = new Hono();
app.get("/teams/:id", (c) => c.json({ id: c.req.param("id"), name: "core" }));
Bun.serve({ hostname: "127.0.0.1", port: Number(process.env.PORT), fetch: app.fetch });\n`,
  );
  const serve = (port: number, ...more: string[]): readonly string[] => [
    BINARY,
    "serve",
    ".",
    "--port",
    String(port),
    "--sidecar",
    "none.sock",
    "--log-dir",
    join(directory, `log-${port}`),
    ...more,
  ];
  const servers = [
    await start("bare hono", () => [process.execPath, "bare.ts"]),
    await start("access log on", (port) => serve(port)),
    await start("access log off", (port) => serve(port, "--no-access-log")),
  ];
  for (const { port } of servers) await load(port, ROUND_MS);
  for (let turn = 0; turn < rounds; turn += 1) {
    for (const { port, pid, perSecond, cpuMicros } of servers) {
      const before = await cpuOf(pid);
      const answers = await load(port, ROUND_MS);
      perSecond.push((answers * 1_000) / ROUND_MS);
      cpuMicros.push(((await cpuOf(pid)) - before) / answers);
    }
  }
  const [bare, on, off] = servers.map(({ perSecond, cpuMicros }) => ({
    perSecond: round(median(perSecond)),
    cpuMicros: round(Math.min(...cpuMicros), 1),
  }));
  if (bare === undefined || on === undefined || off === undefined) throw new Error("a server is missing");
  console.log(
    JSON.stringify({
      bench: "P9",
      what: "framework v bare hono, processor time per request",
      baseline: bare,
      accessLogOn: on,
      accessLogOff: off,
      ratioOn: round(bare.cpuMicros / on.cpuMicros, 2),
      ratioOff: round(bare.cpuMicros / off.cpuMicros, 2),
      target: "on >= 0.75, off >= 0.9",
    }),
  );
}

async function measureP11(): Promise<void> {
  const versions: number[] = [];
  const readies: number[] = [];
  for (let turn = 0; turn < rounds * 3; turn += 1) {
    const began = performance.now();
    await Bun.spawn([BINARY, "--version"], { stdout: "ignore" }).exited;
    versions.push(performance.now() - began);

    const port = await freePort();
    const start = performance.now();
    const child = Bun.spawn(
      [BINARY, "serve", ".", "--port", String(port), "--sidecar", "none.sock", "--log-dir", join(directory, "log")],
      { cwd: directory, stdin: "ignore", stdout: "ignore", stderr: "inherit" },
    );
    await untilAnswers(`http://127.0.0.1:${port}/readyz`);
    readies.push(performance.now() - start);
    child.kill("SIGTERM");
    await child.exited;
  }
  console.log(
    JSON.stringify({
      bench: "P11",
      what: "start, median in ms",
      versionMs: round(median(versions)),
      serveToReadyMs: round(median(readies)),
      target: "version <= 80, serve <= 200",
    }),
  );
}

try {
  await writeFile(join(directory, "smartstack.yaml"), "name: bench\n");
  await writeFile(
    join(directory, "service.ts"),
    `import { smartService } from "smartstack";
export default smartService("bench", {}, (app) => {
  app.get("/teams/:id", ({ params }) => ({ id: params.id, name: "core" }));
});\n`,
  );
  await measureP11();
  await measureP9();
} finally {
  for (const child of children) {
    child.kill("SIGKILL");
    await child.exited;
  }
  await rm(directory, { recursive: true, force: true });
}
