// `serve --dev`: the service in a child process that is started anew when a file changes. A process of its own, because nothing
// short of that forgets a module.
import { watch } from "node:fs";
import type { Subprocess } from "bun";
import { type Cancel, type Clock, systemClock } from "../core/lib/clock.ts";
import type { Fault } from "../core/lib/errors.ts";
import type { Running } from "../core/lib/running.ts";

export type DevConfig = {
  /** Watched, with everything below it. */
  readonly directory: string;
  /** Starts the service; see `onceAgain`. */
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly say: (line: string) => void;
};

/** Editors save in several steps; one restart for all of them, in ms. */
const SETTLE_MS = 100;
const IGNORED = /(?:^|\/)(?:node_modules|\.[^/]*)(?:\/|$)|\.(?:log|lock|tmp|swp)$|~$/;

/**
 * The same invocation without --dev, wherever that was said: a service that is served by --dev must not do the same again.
 * What stands behind `--` is the command's own.
 */
export function onceAgain(
  argv: readonly string[],
  environment: DevConfig["environment"],
): { readonly argv: readonly string[]; readonly environment: DevConfig["environment"] } {
  const end = argv.indexOf("--");
  const own = (index: number): boolean => end >= 0 && index > end;
  return {
    argv: argv.filter((argument, index) => own(index) || !/^--dev(?:=|$)/.test(argument)),
    // said, not left out: a configuration file may say true
    environment: { ...environment, SMARTSTACK_DEV: "false" },
  };
}

export interface RunningDev extends Running {
  /** Kills the service now. */
  kill(): void;
}

export async function startDev(config: DevConfig, clock: Clock = systemClock): Promise<RunningDev> {
  const { promise: ended, resolve: end } = Promise.withResolvers<Fault | undefined>();
  let child = start(config);
  let settling: Cancel | undefined;
  let restarting: Promise<void> = Promise.resolve();

  const restart = async (file: string): Promise<void> => {
    config.say(`${file} changed: starting again`);
    await stopNow(child);
    child = start(config);
  };
  const watcher = watch(config.directory, { recursive: true }, (_event, file) => {
    if (file === null || IGNORED.test(file)) return;
    settling?.();
    settling = clock.after(SETTLE_MS, () => {
      restarting = restarting.then(() => restart(file));
    });
  });
  return {
    ended,
    kill: () => child.kill("SIGKILL"),
    async stop() {
      watcher.close();
      settling?.();
      await restarting;
      await stopNow(child);
      end(undefined);
    },
  };
}

function start({ command, environment }: DevConfig): Subprocess {
  return Bun.spawn([...command], {
    // it ends with this process, however that ends
    env: { ...environment, BUN_FEATURE_FLAG_NO_ORPHANS: "1" },
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
  });
}

/** The second signal means at once: a restart does not wait until every host has taken the instance out. */
async function stopNow(child: Subprocess): Promise<void> {
  child.kill("SIGTERM");
  child.kill("SIGTERM");
  await child.exited;
}
