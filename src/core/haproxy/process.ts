// The HAProxy process of a state directory: found or started, watched, reloaded, ended. It is started so that it outlives
// this one: a session of its own, a pipe that never breaks as its standard output, a file as its standard error.
import { spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { createConnection, createServer, type Socket } from "node:net";
import { join } from "node:path";
import type { Clock } from "../lib/clock.ts";
import { errorCode, Fault } from "../lib/errors.ts";
import { openPipeForWriting } from "./pipe.ts";
import { FILES } from "./render.ts";
import { type Processes, runBatch, showProcesses } from "./runtime-api.ts";

const MASTER_SOCKET = "master.sock";
const METRICS_SOCKET = "metrics.sock";
const ACCESS_PIPE = "access.pipe";
const ERRORS = "haproxy.err";
const LOADED = "loaded.json";

/** sun_path holds 108 bytes with its end; HAProxy first binds to the name with `.PID.tmp` behind it. */
const LONGEST_SOCKET_PATH = 107 - ".4194304.tmp".length;

export type Paths = {
  readonly directory: string;
  readonly config: string;
  readonly master: string;
  readonly metrics: string;
  readonly accessPipe: string;
  readonly errors: string;
  /** Beside the configuration: what HAProxy was loaded with. */
  readonly loaded: string;
};

/** @throws Fault `path_too_long` */
export function pathsIn(directory: string): Paths {
  const master = join(directory, MASTER_SOCKET);
  const metrics = join(directory, METRICS_SOCKET);
  for (const socket of [master, metrics]) {
    if (Buffer.byteLength(socket) > LONGEST_SOCKET_PATH) {
      throw new Fault({
        code: "path_too_long",
        message: `the socket path ${socket} has ${Buffer.byteLength(socket)} bytes, and ${LONGEST_SOCKET_PATH} is the most that works`,
        hint: "Give a state directory with a shorter path (--state-dir).",
      });
    }
  }
  return {
    directory,
    config: join(directory, FILES.config),
    master,
    metrics,
    accessPipe: join(directory, ACCESS_PIPE),
    errors: join(directory, ERRORS),
    loaded: join(directory, LOADED),
  };
}

/** The processes of the HAProxy that runs for this directory, or undefined when none does. */
export async function findRunning(paths: Paths): Promise<Processes | undefined> {
  try {
    const processes = await showProcesses(paths.master);
    return processes.master > 0 ? processes : undefined;
  } catch (error) {
    if (error instanceof Fault && error.code === "haproxy_unreachable") return undefined;
    throw error;
  }
}

const POLL_MS = 10;
/** 1,000 services with 10 instances each load in half a second; a machine under load may take its time. */
const START_LIMIT_MS = 30_000;

/**
 * Starts HAProxy on the files of the directory and resolves when its worker answers.
 * @throws Fault `address_in_use`, `haproxy_failed`
 */
export async function startHaproxy(binary: string, paths: Paths, bind: string, clock: Clock): Promise<Processes> {
  await probeBind(bind);
  await rm(paths.master, { force: true });
  const output = openPipeForWriting(paths.accessPipe);
  await rm(paths.errors, { force: true });
  // appending, so that the file can be cut while HAProxy holds it
  const errors = openSync(paths.errors, "a", 0o644);
  const started = spawn(binary, ["-W", "-S", `${paths.master},mode,600`, "-f", paths.config], {
    cwd: "/",
    detached: true,
    stdio: ["ignore", output, errors],
  });
  closeSync(output);
  closeSync(errors);
  started.unref();
  const child = { state: "running" };
  started.on("exit", () => (child.state = "ended"));
  started.on("error", () => (child.state = "ended"));
  for (const deadline = clock.now() + START_LIMIT_MS; clock.now() < deadline && child.state === "running";) {
    const processes = await findRunning(paths);
    if (processes?.worker !== undefined && (await answers(paths, processes.worker))) return processes;
    await clock.sleep(POLL_MS);
  }
  if (child.state === "running") started.kill("SIGKILL");
  throw new Fault({
    code: "haproxy_failed",
    message: `HAProxy did not start: ${lastErrors(paths)}`,
    hint: `Its words are in ${paths.errors}.`,
  });
}

async function answers(paths: Paths, worker: number): Promise<boolean> {
  try {
    await runBatch({ socket: paths.master, target: worker, commands: ["show version"], timeoutMs: 2_000 });
    return true;
  } catch (error) {
    if (error instanceof Fault) return false;
    throw error;
  }
}

/** What HAProxy last complained of, on one line. */
function lastErrors(paths: Paths): string {
  const alerts = readFileSync(paths.errors, "utf8")
    .split("\n")
    .filter((line) => line.startsWith("[ALERT]"))
    .map((line) => line.replace(/^\[ALERT\]\s*\(\d+\) : /, ""));
  return alerts.slice(-3).join("; ") || "it said nothing";
}

/** HAProxy shares its port with any other HAProxy (SO_REUSEPORT), which would then get half of the requests: ask first. */
export async function probeBind(bind: string): Promise<void> {
  const colon = bind.lastIndexOf(":");
  const host = bind.slice(0, colon).replace(/^\[|\]$/g, "");
  const port = Number(bind.slice(colon + 1));
  const server = createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      server.on("error", reject);
      server.listen({ port, exclusive: true, ...(host === "" || host === "*" ? {} : { host }) }, () => resolve());
    });
  } catch (cause) {
    const busy = errorCode(cause) === "EADDRINUSE";
    throw new Fault({
      code: busy ? "address_in_use" : "bind_failed",
      message: busy ? `another program listens on ${bind}` : `cannot listen on ${bind}`,
      hint: busy
        ? `Stop it (\`ss -ltnp 'sport = :${port}'\` names it), or route on another address with --bind.`
        : "--bind takes an address of this machine and a port that this user may bind.",
      cause,
    });
  } finally {
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }
}

/**
 * Reloads: a new worker takes over the listening sockets, the old one finishes what it has. HAProxy 2.6 answers nothing and
 * takes its time, so the new worker is waited for.
 * @throws Fault `haproxy_failed` when the new worker did not come up; the old one then goes on
 */
export async function reloadHaproxy(paths: Paths, before: Processes, clock: Clock): Promise<Processes> {
  await runBatch({ socket: paths.master, target: "master", commands: ["reload"], timeoutMs: 5_000 }).catch(
    (error: unknown) => {
      // 2.6 closes the connection instead of answering
      if (!(error instanceof Fault)) throw error;
    },
  );
  for (const deadline = clock.now() + START_LIMIT_MS; clock.now() < deadline;) {
    const now = await findRunning(paths);
    if (now !== undefined) {
      if (now.failedReloads > before.failedReloads) break;
      if (now.worker !== undefined && now.worker !== before.worker && (await answers(paths, now.worker))) return now;
    } else if (!isAlive(before.master)) break;
    await clock.sleep(POLL_MS);
  }
  throw new Fault({ code: "haproxy_failed", message: `HAProxy refused to reload: ${lastErrors(paths)}` });
}

/** True while the process runs; one that is dead and not yet collected does not. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (errorCode(error) === "ESRCH") return false;
    if (errorCode(error) !== "EPERM") throw error;
  }
  try {
    // the state is the first word behind the name, which stands in parentheses and may hold anything
    return readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.startsWith("Z") !== true;
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
    // no /proc here, or it ended just now: ask again without it
    return process.platform !== "linux";
  }
}

/** True while the process runs and is the HAProxy of this directory: numbers of processes are used again. */
export function runs(pid: number, paths: Paths): boolean {
  if (pid <= 0 || !isAlive(pid)) return false;
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").includes(paths.config);
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
    return process.platform !== "linux";
  }
}

/** Ends HAProxy with all its workers, idle or not; resolves when it is gone. */
export async function endHaproxy(master: number, paths: Paths, clock: Clock): Promise<void> {
  const signal = (name: NodeJS.Signals): void => {
    try {
      process.kill(master, name);
    } catch (error) {
      if (errorCode(error) !== "ESRCH") throw error;
    }
  };
  signal("SIGTERM");
  const start = clock.now();
  while (isAlive(master)) {
    if (clock.now() - start > 5_000) signal("SIGKILL");
    await clock.sleep(POLL_MS);
  }
  for (const socket of [paths.master, paths.metrics]) await rm(socket, { force: true });
}

export type WatchEvents = {
  /** The master is gone. Called once, at the end. */
  readonly onEnd: () => void;
  /** It was reloaded, by us or by somebody else. */
  readonly onReload: () => void;
};

/** A held connection to the master breaks at the moment it ends or reloads, whoever its parent is. */
export function watchHaproxy(paths: Paths, master: number, clock: Clock, events: WatchEvents): { stop(): void } {
  let stopped = false;
  let connection: Socket | undefined;
  const hold = (interrupted: boolean): void => {
    if (stopped) return;
    let held = false;
    connection = createConnection(paths.master);
    connection.unref();
    connection.on("connect", () => {
      held = true;
      if (interrupted) events.onReload();
    });
    // "close" follows every error
    connection.on("error", () => undefined);
    connection.on("close", () => {
      if (stopped) return;
      if (!isAlive(master)) {
        stopped = true;
        events.onEnd();
        return;
      }
      // while it reloads it refuses connections
      clock.after(50, () => hold(interrupted || held));
    });
  };
  hold(false);
  return {
    stop() {
      stopped = true;
      connection?.destroy();
    },
  };
}
