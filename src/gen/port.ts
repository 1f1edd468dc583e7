// Which port a new service gets. Atlas knows the realm's; without it this machine's own knowledge has to do: ports of
// neighbouring projects, ports that somebody listens on, and ports that another run of gen is about to take.
import { readdir, readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { isMap, parseDocument } from "yaml";
import { errorCode, Fault } from "../core/lib/errors.ts";

/** The range of design and Atlas, both ends included. */
export const FIRST_PORT = 5000;
export const LAST_PORT = 29_999;

/** A port that no other run on this machine gets until it is released. */
export type HeldPort = { readonly port: number; release(): Promise<void> };

/**
 * The lowest port that no neighbour names and nobody listens on, held until released.
 *
 * Holding is listening on it: two runs at once cannot both, and a killed run lets go by dying. Neighbours are asked after
 * the port is held: a run releases its port only once its project is in place for the next one to see.
 * @throws Fault `no_port` when all are taken
 */
export async function holdFreePort(neighbours: () => Promise<ReadonlySet<number>>): Promise<HeldPort> {
  const known = await neighbours();
  for (let port = FIRST_PORT; port <= LAST_PORT; port += 1) {
    if (known.has(port)) continue;
    const held = await holdPort(port);
    if (held === undefined) continue;
    if (!(await neighbours()).has(port)) return held;
    await held.release();
  }
  throw new Fault({
    code: "no_port",
    message: `no port from ${FIRST_PORT} to ${LAST_PORT} is free`,
    hint: "Give one with --port.",
  });
}

/** Holds this very port, or returns undefined when somebody has it. */
export async function holdPort(port: number): Promise<HeldPort | undefined> {
  // on every address first, to notice who listens on one of them only; then on loopback alone, where nobody else can knock
  const everywhere = await listen(port, "0.0.0.0");
  if (everywhere === undefined) return undefined;
  await everywhere.release();
  return listen(port, "127.0.0.1");
}

function listen(port: number, host: string): Promise<HeldPort | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.once("error", (error) => {
      if (errorCode(error) === "EADDRINUSE" || errorCode(error) === "EACCES") resolve(undefined);
      else reject(error);
    });
    server.listen({ port, host, exclusive: true }, () =>
      resolve({ port, release: () => new Promise((done) => server.close(() => done())) }),
    );
  });
}

/** Above every service's port, below the ports that Linux gives to outgoing connections; locks first, as many trials behind. */
const LOCKS = { first: 30_000, count: 1_384 };

/**
 * A port for the trial run of a service, free a moment ago, that no other trial gets until it is released. What is held is not
 * that port, which the service must get, but another that stands for it.
 * @throws Fault `no_port`
 */
export async function holdTrialPort(): Promise<HeldPort> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const lock = await holdPort(LOCKS.first + Math.floor(Math.random() * LOCKS.count));
    if (lock === undefined) continue;
    const port = lock.port + LOCKS.count;
    const trial = await holdPort(port);
    await trial?.release();
    if (trial !== undefined) return { port, release: () => lock.release() };
    await lock.release();
  }
  throw new Fault({ code: "no_port", message: "no port is free for the trial run" });
}

/**
 * The ports that `smartstack.yaml` files name in the directories beside `target`. A file that cannot be read or is no YAML
 * names none: somebody else's broken file is no reason to refuse a new service.
 */
export async function neighbourPorts(target: string): Promise<ReadonlySet<number>> {
  const parent = dirname(target);
  const entries = await readdir(parent, { withFileTypes: true }).catch((error: unknown) => {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  });
  const paths = entries
    .filter((entry) => entry.isDirectory() || entry.isSymbolicLink())
    .map((entry) => join(parent, entry.name))
    .filter((path) => path !== target);
  const ports = await Promise.all(paths.map(async (path) => (await readProject(path)).port));
  return new Set(ports.filter((port) => port !== undefined));
}

export type ProjectFacts = { readonly name: string | undefined; readonly port: number | undefined };

/** What a project's `smartstack.yaml` says, as far as there is one and it can be read. */
export async function readProject(directory: string): Promise<ProjectFacts> {
  return parseProject(await readFile(join(directory, "smartstack.yaml"), "utf8").catch(() => ""));
}

export function parseProject(text: string): ProjectFacts {
  const { contents } = parseDocument(text);
  const get = (key: string): unknown => (isMap(contents) ? contents.get(key) : undefined);
  const [name, port] = [get("name"), get("port")];
  return { name: typeof name === "string" ? name : undefined, port: typeof port === "number" ? port : undefined };
}
