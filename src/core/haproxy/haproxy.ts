// The HAProxy of one state directory as one object: its files, its processes, what it was loaded with, what it says. Only
// one caller at a time may use it; apply.ts sees to that.
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../lib/atomic-file.ts";
import type { Clock } from "../lib/clock.ts";
import { errorCode, Fault } from "../lib/errors.ts";
import type { Logger } from "../lib/logger.ts";
import { type Definition, readDefinitionSchema } from "../model/service.ts";
import type { Command, RunningServer } from "./changes.ts";
import type { Loaded, Running, Wanted } from "./plan.ts";
import { endHaproxy, findRunning, type Paths, probeBind, reloadHaproxy, startHaproxy } from "./process.ts";
import { parseAcl, parseBackends, parseServersState } from "./read-back.ts";
import { FILES, KEEP_ALIVE_MS, render, type RenderContext, STRUCTURE_VARIABLE } from "./render.ts";
import { type Processes, runBatch, showProcesses } from "./runtime-api.ts";

const SHOW_UNPINNABLE = `show acl ${FILES.unpinnable}`;

/** Beside the configuration: the structure it was loaded with and the definitions behind it. */
const LOADED = "loaded.json";

export interface Haproxy {
  readonly paths: Paths;
  /** Undefined until `adopt` or `start`, and after it died. */
  readonly processes: Processes | undefined;
  readonly loaded: Loaded | undefined;
  /** True when one ran and is ours now. */
  adopt(): Promise<boolean>;
  /** Starts it on `wanted`. @throws Fault `address_in_use`, `haproxy_failed` */
  start(wanted: Wanted): Promise<void>;
  /** Writes the files of `wanted`, those that differ from what was last written. */
  write(wanted: Wanted): Promise<void>;
  /** @throws Fault `haproxy_failed` when the new worker did not come up; the old one goes on */
  reload(wanted: Wanted): Promise<void>;
  /** Reads back everything, or of the backends only those named. */
  read(backends?: ReadonlySet<string>): Promise<Running>;
  /**
   * Runs commands in the worker.
   * @returns what it answered to commands that failed
   */
  execute(commands: readonly Command[]): Promise<readonly string[]>;
  /** Something was taken away from clients: workers of before the last reload, if any live, did not hear of it. */
  noteTaken(): Promise<void>;
  /**
   * After `noteTaken`: resolves when no worker of before the last reload can still send a request of
   * an idle client to what was taken. That ends with the last of them, or with the time that HAProxy keeps idle clients.
   */
  untilOldAreDone(): Promise<void>;
  /** Looks again which workers live. */
  refreshProcesses(): Promise<void>;
  forget(): void;
  end(): Promise<void>;
}

export type HaproxyOptions = {
  readonly binary: string;
  readonly paths: Paths;
  readonly context: RenderContext;
  readonly clock: Clock;
  readonly logger: Logger;
};

export function createHaproxy({ binary, paths, context, clock, logger }: HaproxyOptions): Haproxy {
  let processes: Processes | undefined;
  let loaded: Loaded | undefined;
  let known: Running | undefined;
  let reloadedAt = Number.NEGATIVE_INFINITY;
  /** Something was taken away while old workers lived: they act on their old list until then. */
  let oldActUntil = Number.NEGATIVE_INFINITY;
  const written = new Map<string, string>();

  const worker = (): number => {
    if (processes?.worker === undefined)
      throw new Fault({ code: "haproxy_unreachable", message: "HAProxy does not run" });
    return processes.worker;
  };
  const ask = (commands: readonly string[], target = worker()): Promise<readonly string[]> =>
    runBatch({ socket: paths.master, target, commands });

  const refresh = async (): Promise<void> => {
    processes = await showProcesses(paths.master);
  };

  const write = async (wanted: Wanted): Promise<void> => {
    const { files } = render(wanted.layout, context, wanted.structure);
    await mkdir(paths.directory, { recursive: true, mode: 0o755 });
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
    loaded = { structure, definitions };
    known = undefined;
    await writeLoaded(paths, loaded);
  };

  return {
    paths,
    get processes() {
      return processes;
    },
    get loaded() {
      return loaded;
    },
    async adopt() {
      const stored = await readLoaded(paths);
      // also when nothing runs: the last good form of a definition outlives HAProxy
      loaded = stored;
      processes = await findRunning(paths);
      if (processes?.worker === undefined) {
        processes = undefined;
        return false;
      }
      const [answer = ""] = await ask([`show env ${STRUCTURE_VARIABLE}`]);
      if (stored === undefined || answer !== `${STRUCTURE_VARIABLE}=${stored.structure.id}`) loaded = undefined;
      // it may have been reloaded a moment ago
      reloadedAt = clock.now();
      return true;
    },
    async start(wanted) {
      await write(wanted);
      processes = await startHaproxy(binary, paths, context.bind, clock);
      reloadedAt = Number.NEGATIVE_INFINITY;
      await remember(wanted);
    },
    write,
    async reload(wanted) {
      const before = await showProcesses(paths.master);
      // a failed bind stops all frontends for two seconds, and `haproxy -c` does not notice
      if (loaded?.structure.frame.includes(`bind ${context.bind}\n`) !== true) await probeBind(context.bind);
      await write(wanted);
      processes = await reloadHaproxy(paths, before, clock);
      reloadedAt = clock.now();
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
      if (clock.now() >= reloadedAt + KEEP_ALIVE_MS) return;
      await refresh();
      // they answer "Proxy is disabled" to every change, so they can only be waited for
      if ((processes?.old.length ?? 0) > 0) oldActUntil = reloadedAt + KEEP_ALIVE_MS;
    },
    async untilOldAreDone() {
      while (clock.now() < oldActUntil) {
        await refresh();
        if ((processes?.old.length ?? 0) === 0) break;
        await clock.sleep(50);
      }
      oldActUntil = Number.NEGATIVE_INFINITY;
    },
    refreshProcesses: refresh,
    forget() {
      processes = undefined;
      known = undefined;
    },
    async end() {
      if (processes !== undefined) await endHaproxy(processes.master, paths, clock);
      processes = undefined;
      logger.debug("HAProxy ended");
    },
  };
}

/** HAProxy answers most changes with nothing, some with a sentence. */
function isFailure(answer: string): boolean {
  return (
    answer !== "" && !/^(New server registered|Server deleted|no need to change|.*changed from .* by )/.test(answer)
  );
}

const loadedSchema = z.object({
  id: z.string(),
  frame: z.string(),
  backends: z.record(z.string(), z.string()),
  definitions: z.record(z.string(), readDefinitionSchema),
});

async function writeLoaded(paths: Paths, { structure, definitions }: Loaded): Promise<void> {
  const { id, frame, backends } = structure;
  const text = JSON.stringify({ id, frame, backends: Object.fromEntries(backends), definitions });
  await writeFileAtomic(join(paths.directory, LOADED), text, { durable: false });
}

/** Undefined when there is none, or none that can be understood: then a reload settles it. */
async function readLoaded(paths: Paths): Promise<Loaded | undefined> {
  let text: string;
  try {
    text = await readFile(join(paths.directory, LOADED), "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
  const parsed = loadedSchema.safeParse(parseJson(text));
  if (!parsed.success) return undefined;
  const { id, frame, backends, definitions } = parsed.data;
  const known: Record<string, Definition> = definitions;
  return { structure: { id, frame, backends: new Map(Object.entries(backends)) }, definitions: known };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
