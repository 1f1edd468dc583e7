// `smartstack serve -- COMMAND`: any program in any language as an instance. It gets its port in PORT, is registered when it
// answers its check, and is told to end (SIGTERM) only after every host has taken it out.
import { connect } from "node:net";
import type { Subprocess } from "bun";
import { createSidecarClient } from "../core/api/sidecar-client.ts";
import { formatAddress } from "../core/lib/address.ts";
import { type Clock, systemClock } from "../core/lib/clock.ts";
import { errorCode, Fault } from "../core/lib/errors.ts";
import type { Logger } from "../core/lib/logger.ts";
import type { Running } from "../core/lib/running.ts";
import { assume, contradiction, firstWord } from "./first-word.ts";
import { listen } from "./listener.ts";
import type { Manifest } from "./manifest.ts";
import { Registration } from "./registration.ts";

export type CommandConfig = {
  readonly manifest: Manifest;
  readonly command: readonly string[];
  readonly directory: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly realm: string | undefined;
  readonly host: string | undefined;
  readonly listen: string | undefined;
  /** 0 for a free one. */
  readonly port: number;
  readonly sidecar: string;
  readonly logger: Logger;
};

export interface RunningCommand extends Running {
  readonly port: number;
  /** The child's exit code, 128 + signal when it was killed; 0 when it ended because `stop` told it to. */
  readonly exitCode: Promise<number>;
  /** Kills the child now. */
  kill(): void;
}

/** Between two looks whether a starting program answers, in ms. */
const POLL_MS = 100;
/** A program that does not answer for so long is told of, once, in ms: it may listen somewhere else. */
const SILENT_MS = 10_000;
/** How long a program may take to end after SIGTERM, in ms. */
const TERM_MS = 10_000;

/** Resolves when the program was started; it is registered later, when it answers. @throws Fault `address_in_use`, `command_failed` */
export async function startCommand(config: CommandConfig, clock: Clock = systemClock): Promise<RunningCommand> {
  const { manifest, logger } = config;
  const sidecar = createSidecarClient({ socket: config.sidecar });
  const info = await firstWord(sidecar, clock);
  const assumedRealm = assume(config.realm, info?.realm, "local");
  const assumedAddress = assume(config.listen, info?.address, "127.0.0.1");
  const [realm, address] = [assumedRealm.value, assumedAddress.value];
  const port = await freePort(address, config.port);
  const child = spawn(config, { address, port, realm, router: info?.router });
  logger.info(
    { child: child.pid },
    `${manifest.name} started: ${config.command.join(" ")} (port ${port}, realm ${realm})`,
  );

  const tooEarly = Promise.withResolvers<Fault>();
  const registration = new Registration({
    service: manifest.name,
    port,
    host: config.host,
    address: undefined,
    version: "",
    definition: manifest.definition,
    realm,
    sidecar,
    clock,
    logger,
    onInfo: (sidecar) => {
      const fault =
        contradiction("realm", assumedRealm, sidecar.realm) ??
        contradiction("address", assumedAddress, sidecar.address);
      if (fault === undefined) return;
      tooEarly.resolve(fault);
      throw fault;
    },
  });
  const gone = new AbortController();
  const { promise: ended, resolve: end } = Promise.withResolvers<Fault | undefined>();
  let stopping: Promise<void> | undefined;

  const { healthcheck, protocol } = manifest.definition;
  const place = formatAddress({ host: address, port });
  const url = `http://${place}${healthcheck.path}`;
  const probe = protocol === "tcp" ? () => connects(address, port) : () => answers(url, healthcheck.timeoutMs);
  const registered = (async () => {
    const cancel = clock.after(SILENT_MS, () => {
      const where = protocol === "tcp" ? place : url;
      logger.warn(
        `${manifest.name} does not answer on ${where}: it is registered when it does. It is to listen on the port in PORT, at the address in SMARTSTACK_LISTEN or at all`,
      );
    });
    const healthy = await untilHealthy(probe, clock, gone.signal);
    cancel();
    if (!healthy) return;
    logger.info(`${manifest.name} answers on port ${port}`);
    await registration.start();
  })();

  const exitCode = child.exited.then(async (code) => {
    gone.abort();
    // what it started and did not end would hold the port, and nobody would ever end it
    signalGroup(child, "SIGKILL");
    if (stopping !== undefined) return child.signalCode === "SIGTERM" ? 0 : code;
    // it ended by itself: nobody is to be sent there any more
    logger.error(`${manifest.name} ended by itself with code ${code}`);
    await registered;
    await registration.leave();
    end(new Fault({ code: "command_ended", message: `${manifest.name} ended by itself with code ${code}` }));
    return code;
  });

  const shutDown = async (reason?: Fault): Promise<void> => {
    gone.abort();
    await registered;
    await registration.drain();
    signalGroup(child, "SIGTERM");
    const cancel = clock.after(TERM_MS, () => {
      logger.warn(`${manifest.name} did not end within ${TERM_MS} ms of SIGTERM; it is killed`);
      signalGroup(child, "SIGKILL");
    });
    await child.exited;
    cancel();
    await registration.leave();
    end(reason);
  };
  void tooEarly.promise.then((fault) => (stopping ??= shutDown(fault)));
  return { port, exitCode, ended, stop: () => (stopping ??= shutDown()), kill: () => signalGroup(child, "SIGKILL") };
}

type Surroundings = {
  readonly address: string;
  readonly port: number;
  readonly realm: string;
  readonly router: string | undefined;
};

/**
 * Becomes the program of its arguments, in the directory of its first one. Run by this very file as Bun, which asks the kernel to
 * be killed when its parent dies (BUN_FEATURE_FLAG_NO_ORPHANS); on Linux that wish survives becoming another program.
 */
const BECOME = `
const [directory, path, ...argv] = process.argv.slice(1);
const { BUN_BE_BUN, BUN_FEATURE_FLAG_NO_ORPHANS, ...environment } = process.env;
process.chdir(directory);
process.execve(path, argv, environment);`;

/** @throws Fault `command_failed` */
function spawn(config: CommandConfig, { address, port, realm, router }: Surroundings): Subprocess {
  const { command, directory, environment } = config;
  const [name = ""] = command;
  const path = Bun.which(name, { PATH: environment.PATH ?? "", cwd: directory });
  if (path === null) {
    throw new Fault({
      code: "command_failed",
      message: `${name} could not be started: there is no such program`,
      hint: `Is it installed, executable, and on PATH? It is started in ${directory}.`,
    });
  }
  // in / and told to read nothing: a bunfig.toml or .env of the service's directory is not for this step
  return Bun.spawn(
    [process.execPath, "--no-env-file", "--config=/dev/null", "-e", BECOME, directory, path, ...command],
    {
      cwd: "/",
      env: {
        ...environment,
        PORT: String(port),
        SMARTSTACK_REALM: realm,
        SMARTSTACK_LISTEN: address,
        ...(router === undefined ? {} : { SMARTSTACK_ROUTER: router }),
        BUN_BE_BUN: "1",
        BUN_FEATURE_FLAG_NO_ORPHANS: "1",
      },
      stdin: "ignore",
      stdout: "inherit",
      stderr: "inherit",
      // a group of its own: Ctrl-C is for serve, which drains first, and a signal reaches what a shell has started, too
      detached: true,
    },
  );
}

/** To the program and everything it started. */
function signalGroup(child: Subprocess, signal: NodeJS.Signals): void {
  try {
    process.kill(-child.pid, signal);
  } catch (error) {
    // it ended a moment ago
    if (errorCode(error) !== "ESRCH") throw error;
  }
}

/** A busy port is told before the program is started, in words that say what to do. @throws Fault `address_in_use` */
async function freePort(address: string, port: number): Promise<number> {
  const probe = listen(address, port, () => new Response());
  await probe.stop(0);
  return probe.port;
}

/** False when `signal` aborted first. */
async function untilHealthy(probe: () => Promise<boolean>, clock: Clock, signal: AbortSignal): Promise<boolean> {
  while (!signal.aborted) {
    if (await probe()) return true;
    // an abort ends the wait early; the loop sees it
    await clock.sleep(POLL_MS, signal).catch(() => undefined);
  }
  return false;
}

/** What HAProxy takes for a pass: any status of 2xx or 3xx. */
async function answers(url: string, timeoutMs: number): Promise<boolean> {
  try {
    const response = await fetch(url, { redirect: "manual", signal: AbortSignal.timeout(timeoutMs) });
    await response.body?.cancel();
    return response.status < 400;
  } catch (error) {
    // not yet: it is asked again
    return error === undefined;
  }
}

function connects(address: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, address, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", () => resolve(false));
  });
}
