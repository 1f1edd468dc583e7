// Starting real programs, waiting for real effects, and stopping what was started: for the end-to-end tests and the demo.
import { createServer } from "node:net";
import { resolve } from "node:path";

/** The compiled binary that `scripts/build` made, or another build to try the same tests on. */
export const BINARY = process.env.SMARTSTACK_BINARY ?? resolve(import.meta.dir, "../../dist/smartstack");

/** `{port: "1"}` as `--port 1`. */
export function flags(options: Readonly<Record<string, string | number>>): string[] {
  return Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
}

export type Spawned = {
  readonly name: string;
  readonly pid: number;
  /** Everything it printed so far, both streams. */
  output(): string;
  /** Resolves with the exit code (128 + signal when killed). */
  readonly exited: Promise<number>;
  signal(name: NodeJS.Signals): void;
  /** SIGTERM, then SIGKILL after 15 s; resolves with the exit code. */
  stop(): Promise<number>;
};

export type SpawnOptions = {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly name?: string;
};

export type Finished = { readonly code: number; readonly stdout: string; readonly stderr: string };

/** Asks until `check` returns without throwing; then its value. @throws the last failure after `timeoutMs` */
export async function eventually<T>(what: string, check: () => T | Promise<T>, timeoutMs = 10_000): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`, { cause: error });
    }
    await Bun.sleep(20);
  }
}

const handedOut = new Set<number>();
/** scripts/test runs two suites at a time; each has every other port. */
const LANE = Number(process.env.TEST_LANE ?? 0);

/**
 * A port of loopback that was free a moment ago. From below the ephemeral range (32768 and up), where any outgoing connection
 * of the machine could take it before the program under test binds it; and never the same twice.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + 2 * Math.floor(Math.random() * 6_000) + LANE;
    if (handedOut.has(port) || !(await isFree(port))) continue;
    handedOut.add(port);
    return port;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolveFree) => {
    const server = createServer();
    server.on("error", () => resolveFree(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolveFree(true)));
  });
}

/** The ids of the processes whose command line names this directory: an HAProxy outlives whoever started it. */
export async function processesOf(directory: string): Promise<number[]> {
  const found: number[] = [];
  for (const pid of new Bun.Glob("[0-9]*").scanSync({ cwd: "/proc", onlyFiles: false })) {
    // a process may be gone by now
    const line = await Bun.file(`/proc/${pid}/cmdline`)
      .text()
      .catch(() => "");
    if (line.includes(directory)) found.push(Number(pid));
  }
  return found;
}

// a program under test must not see the settings of whoever runs the tests
function environmentOf(options: SpawnOptions): Record<string, string | undefined> {
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("SMARTSTACK_")));
  return { ...clean, ...options.env };
}

/** Starts a program that keeps running; its output is collected. */
export function spawn(command: readonly string[], options: SpawnOptions): Spawned {
  const chunks: string[] = [];
  const child = Bun.spawn([...command], {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: environmentOf(options),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const drains = [child.stdout, child.stderr].map((stream) => collect(stream, chunks));
  const exited = child.exited.then(async (code) => {
    await Promise.race([Promise.all(drains), Bun.sleep(500)]);
    return code;
  });
  return {
    name: options.name ?? command.slice(0, 2).join(" "),
    pid: child.pid,
    output: () => chunks.join(""),
    exited,
    signal: (name) => child.kill(name),
    async stop() {
      if (child.exitCode === null && child.signalCode === null) child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 15_000);
      const code = await exited;
      clearTimeout(timer);
      return code;
    },
  };
}

async function collect(stream: ReadableStream<Uint8Array>, into: string[]): Promise<void> {
  const decoder = new TextDecoder();
  for await (const chunk of stream) into.push(decoder.decode(chunk, { stream: true }));
}

/** Runs a program to its end, at most 60 s. */
export async function runToEnd(command: readonly string[], options: SpawnOptions): Promise<Finished> {
  const child = Bun.spawn([...command], {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: environmentOf(options),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: 60_000,
  });
  const [code, stdout, stderr] = await Promise.all([
    child.exited,
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return { code, stdout, stderr };
}
