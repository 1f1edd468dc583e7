// The HAProxy of one state directory as one object: its files, its processes, what it was loaded with, what it says. Only
// one caller at a time may change it; apply.ts sees to that.
import { existsSync, statSync, truncateSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../lib/atomic-file.ts";
import type { Clock } from "../lib/clock.ts";
import { errorCode, Fault } from "../lib/errors.ts";
import type { Binary } from "./binary.ts";
import type { Command, RunningServer } from "./changes.ts";
import { backendName } from "./layout.ts";
import { type Loaded, readLoaded, writeLoaded } from "./loaded.ts";
import type { Running, Wanted } from "./plan.ts";
import {
  endHaproxy,
  findRunning,
  isAlive,
  type Paths,
  probeBind,
  reloadHaproxy,
  runs,
  startHaproxy,
} from "./process.ts";
import type { ServerStatus } from "./proxy.ts";
import { parseAcl, parseBackends, parseServersState, parseStatus } from "./read-back.ts";
import { FILES, KEEP_ALIVE_MS, render, type RenderContext, STRUCTURE_VARIABLE } from "./render.ts";
import { type Processes, runBatch, showProcesses } from "./runtime-api.ts";

export interface Haproxy {
  readonly paths: Paths;
  /** As last seen; undefined before `adopt` or `start`. */
  readonly processes: Processes | undefined;
  /** Whether its master runs at this moment. */
  readonly alive: boolean;
  /** The last good form of each definition: what it was loaded with, by this sidecar or an earlier one. */
  readonly lastGood: Loaded | undefined;
  /** When it was last reloaded, or a reload was tried, in ms since the epoch; -Infinity when never. */
  readonly reloadedAt: number;
  /** True when one ran and is ours now. */
  adopt(): Promise<boolean>;
  /** Starts it on `wanted`, or when that cannot be written, on the files that are there. @throws Fault `address_in_use`, `bind_failed`, `haproxy_failed` */
  start(wanted: Wanted): Promise<void>;
  /** Writes the files of `wanted`, those that differ from what was last written. */
  write(wanted: Wanted): Promise<void>;
  /**
   * @param foundDown `BACKEND/SERVER` that get no request from the new worker until it has been told about them
   * @throws Fault `address_in_use`, `haproxy_failed` when the new worker did not come up; the old one goes on
   */
  reload(wanted: Wanted, foundDown: ReadonlySet<string>): Promise<void>;
  /** Reads back everything, or of the backends only those named. */
  read(backends?: ReadonlySet<string>): Promise<Running>;
  /** Runs commands in order. @returns those that failed, each with HAProxy's answer */
  execute(commands: readonly Command[]): Promise<readonly string[]>;
  /** Something was taken away from clients: workers of before the last reload, if any live, do not hear of it. */
  noteTaken(): Promise<void>;
  /**
   * Whether a worker of before the last reload can still send a request of an idle client to what `noteTaken` was told of:
   * until the last of them is gone, or the time is over that HAProxy keeps idle clients.
   */
  oldStillAct(): Promise<boolean>;
  /** Looks again which workers live. */
  refreshProcesses(): Promise<void>;
  status(service?: string): Promise<readonly ServerStatus[]>;
  /** In the Prometheus text format; empty when this HAProxy was built without it. */
  metrics(): Promise<string>;
  /** Keeps the file of HAProxy's complaints from growing without end: it gets a line whenever a server goes up or down. */
  trimErrors(): void;
  end(): Promise<void>;
}

export type HaproxyOptions = {
  readonly binary: Binary;
  readonly paths: Paths;
  readonly context: RenderContext;
  readonly clock: Clock;
};

const SHOW_UNPINNABLE = `show acl ${FILES.unpinnable}`;
const LONGEST_ERRORS = 1_048_576;
const ADOPTION_LIMIT_MS = 5_000;

export function createHaproxy({ binary, paths, context, clock }: HaproxyOptions): Haproxy {
  let processes: Processes | undefined;
  let loaded: Loaded | undefined;
  let lastGood: Loaded | undefined;
  let known: Running | undefined;
  let reloadedAt = Number.NEGATIVE_INFINITY;
  /** When the last old worker can have become one. */
  let replacedAt = Number.NEGATIVE_INFINITY;
  /** Something was taken away while old workers lived: they act on their old list until then. */
  let oldActUntil = Number.NEGATIVE_INFINITY;
  const written = new Map<string, string>();

  const ask = async (commands: readonly string[]): Promise<readonly string[]> => {
    const target = processes?.worker;
    if (target === undefined) throw new Fault({ code: "haproxy_unreachable", message: "HAProxy does not run" });
    return runBatch({ socket: paths.master, target, commands });
  };

  const refreshProcesses = async (): Promise<void> => {
    processes = await showProcesses(paths.master);
  };

  const write = async (wanted: Wanted, foundDown?: ReadonlySet<string>): Promise<void> => {
    const { files } = render(wanted.layout, context, wanted.structure, foundDown);
    await mkdir(paths.directory, { recursive: true });
    for (const [name, text] of Object.entries(files)) {
      if (written.get(name) === text) continue;
      // a crash of the machine costs nothing: the next start writes them again
      await writeFileAtomic(join(paths.directory, name), text, { durable: false });
      written.set(name, text);
    }
  };

  const remember = async ({ layout, structure }: Wanted): Promise<void> => {
    const definitions = Object.fromEntries(
      [...layout.backends].map(([service, { definition }]) => [service, definition]),
    );
    loaded = { structure, definitions, master: processes?.master ?? 0 };
    lastGood = loaded;
    known = undefined;
    try {
      await writeLoaded(paths.loaded, loaded);
    } catch (error) {
      // a full disk. HAProxy runs all the same; the next sidecar does not recognize it and reloads once
      if (!(error instanceof Error)) throw error;
    }
  };

  /** What runs was loaded by an earlier sidecar, or from earlier files: asks it, and looks whether that is known. */
  const recognize = async (): Promise<void> => {
    const [answer = ""] = await ask([`show env ${STRUCTURE_VARIABLE}`]);
    loaded = answer === `${STRUCTURE_VARIABLE}=${lastGood?.structure.id}` ? lastGood : undefined;
    known = undefined;
  };

  return {
    paths,
    get processes() {
      return processes;
    },
    get alive() {
      return processes !== undefined && isAlive(processes.master);
    },
    get lastGood() {
      return lastGood;
    },
    get reloadedAt() {
      return reloadedAt;
    },
    async adopt() {
      lastGood = await readLoaded(paths.loaded);
      processes = await findRunning(paths);
      // a sidecar that was killed in a reload leaves a master that does not answer for up to two seconds
      const deadline = clock.now() + ADOPTION_LIMIT_MS;
      while (processes?.worker === undefined && clock.now() < deadline && runs(lastGood?.master ?? 0, paths)) {
        await clock.sleep(50);
        processes = await findRunning(paths);
      }
      if (processes === undefined) return false;
      if (processes.worker === undefined) {
        // a master without a worker routes nothing, and never will
        await endHaproxy(processes.master, paths, clock);
        processes = undefined;
        return false;
      }
      await recognize();
      // the sidecar before may have reloaded it a moment ago
      replacedAt = clock.now();
      return true;
    },
    async start(wanted) {
      let fresh = true;
      try {
        await write(wanted);
      } catch (error) {
        // what it ran before routes better than nothing, and what changed since can be told to it
        if (!existsSync(paths.config)) throw error;
        fresh = false;
      }
      processes = await startHaproxy(binary.path, paths, context.bind, clock);
      replacedAt = Number.NEGATIVE_INFINITY;
      await (fresh ? remember(wanted) : recognize());
    },
    write: (wanted) => write(wanted),
    async reload(wanted, foundDown) {
      const before = await showProcesses(paths.master);
      // a failed bind stops all frontends for two seconds, and `haproxy -c` does not notice
      if (loaded?.structure.frame.includes(`bind ${context.bind}\n`) === false) await probeBind(context.bind);
      await write(wanted, foundDown);
      reloadedAt = clock.now();
      processes = await reloadHaproxy(paths, before, clock);
      reloadedAt = clock.now();
      replacedAt = reloadedAt;
      await remember(wanted);
    },
    async read(backends) {
      if (backends === undefined || known === undefined) {
        const [acl = "", all = "", list = ""] = await ask([SHOW_UNPINNABLE, "show servers state", "show backend"]);
        const servers = new Map(parseServersState(all, parseAcl(acl)));
        for (const backend of parseBackends(list)) if (!servers.has(backend)) servers.set(backend, new Map());
        known = { loaded, servers };
      } else if (backends.size > 0) {
        const names = [...backends];
        const [acl = "", ...states] = await ask([
          SHOW_UNPINNABLE,
          ...names.map((name) => `show servers state ${name}`),
        ]);
        const unpinnable = parseAcl(acl);
        const servers = new Map(known.servers);
        for (const [index, name] of names.entries()) {
          const state = parseServersState(states[index] ?? "", unpinnable).get(name);
          if (state !== undefined || servers.has(name)) servers.set(name, state ?? new Map<string, RunningServer>());
        }
        known = { loaded, servers };
      }
      return known;
    },
    async execute(commands) {
      const answers = await ask(commands.map(({ text }) => text));
      return commands.flatMap(({ text }, index) => {
        const answer = answers[index] ?? "";
        return isFailure(answer) ? [`${text}: ${answer}`] : [];
      });
    },
    async noteTaken() {
      if (clock.now() >= replacedAt + KEEP_ALIVE_MS) return;
      await refreshProcesses();
      // they answer "Proxy is disabled" to every change, so they can only be waited for
      if ((processes?.old.length ?? 0) > 0) oldActUntil = replacedAt + KEEP_ALIVE_MS;
    },
    async oldStillAct() {
      if (clock.now() >= oldActUntil) return false;
      await refreshProcesses();
      return (processes?.old.length ?? 0) > 0;
    },
    refreshProcesses,
    async status(service) {
      const [answer = ""] = await ask([`show stat ${service === undefined ? -1 : backendName(service)} 4 -1`]);
      return parseStatus(answer);
    },
    async metrics() {
      if (!binary.prometheus) return "";
      try {
        // not `scope=server`: sixty lines for each of them, which /metrics of a large realm cannot carry
        const url = "http://localhost/metrics?scope=global&scope=frontend&scope=backend";
        const response = await fetch(url, { unix: paths.metrics, signal: AbortSignal.timeout(5_000) });
        return await response.text();
      } catch (cause) {
        throw new Fault({ code: "haproxy_unreachable", message: "HAProxy gives no statistics", cause });
      }
    },
    trimErrors() {
      try {
        if (statSync(paths.errors).size > LONGEST_ERRORS) truncateSync(paths.errors);
      } catch (error) {
        if (errorCode(error) !== "ENOENT") throw error;
      }
    },
    async end() {
      if (processes !== undefined) await endHaproxy(processes.master, paths, clock);
      processes = undefined;
    },
  };
}

/** HAProxy answers most changes with nothing, some with a sentence. */
function isFailure(answer: string): boolean {
  return (
    answer !== "" && !/^(New server registered|Server deleted|no need to change|.*changed from .* by )/.test(answer)
  );
}
