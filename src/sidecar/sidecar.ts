// The sidecar: one per host. This file wires its parts and owns their order of birth and death.
import { join, resolve } from "node:path";
import type { AtlasClientOptions } from "../core/api/atlas-client.ts";
import { type Address, formatAddress } from "../core/lib/address.ts";
import { type Clock, steadyClock, systemClock } from "../core/lib/clock.ts";
import { describeError, type Fault } from "../core/lib/errors.ts";
import { problemOf, ProblemFault, requestIdOf } from "../core/lib/http.ts";
import { type Logger, silentLogger } from "../core/lib/logger.ts";
import type { Running } from "../core/lib/running.ts";
import { VERSION } from "../core/lib/version.ts";
import type { SidecarInfo } from "../core/model/local.ts";
import { findRunning, pathsIn } from "../core/haproxy/process.ts";
import { createProxy } from "../core/haproxy/proxy.ts";
import { openAccessFile } from "./access-file.ts";
import { ownAddress } from "./address.ts";
import { adminHandler, type AdminOptions, type Handler, socketHandler } from "./admin.ts";
import { startAgent } from "./agent.ts";
import { lockStateDirectory } from "./lock.ts";
import { countRequest, createSidecarMetrics } from "./metrics.ts";
import { type Probe, probe as realProbe } from "./probe.ts";
import { serveSocket, serveTcp } from "./server.ts";

export type SidecarConfig = {
  /** Every replica of Atlas, and how to talk to it. */
  readonly atlas: AtlasClientOptions;
  readonly realm: string;
  /** This host's name in the registry. */
  readonly host: string;
  /** Where others reach this host; undefined: found out, see `ownAddress`. */
  readonly address: string | undefined;
  readonly zone: string;
  /** Where HAProxy takes requests. */
  readonly bind: Address;
  /** The read-only admin port; port 0 asks the system for a free one. */
  readonly admin: Address;
  /** Made when missing. Holds the state, the socket, the access log, and HAProxy's files. */
  readonly stateDir: string;
  /** Path of HAProxy; undefined: looked for. */
  readonly haproxy: string | undefined;
  /** What becomes of HAProxy when the sidecar stops: `keep` it serving for the next sidecar, or `end` it. */
  readonly haproxyOnStop: "keep" | "end";
};

/** @default the real clock (steady: a sidecar must not stand still because somebody sets the time), no log, the real HAProxy, real probes */
export type SidecarDependencies = {
  readonly clock?: Clock;
  readonly logger?: Logger;
  readonly probe?: Probe;
  readonly random?: () => number;
};

export type RunningSidecar = Running & {
  /** Who this host is, now. */
  readonly info: SidecarInfo;
  /** Atlas may take now what it refused: asks again at once, where that was to wait. */
  retry(): void;
  /** The admin port as a URL, and the socket as a path. */
  readonly admin: string;
  readonly socket: string;
};

/** What is in the state directory. */
const FILES = { state: "state.json", socket: "sidecar.sock", access: "access.log", haproxy: "haproxy" } as const;

/**
 * Starts the sidecar of this host. When the promise resolves, HAProxy runs what is known; when it rejects nothing is left that
 * was not there before.
 * @throws Fault `state_dir`, `state_dir_in_use`, `address_in_use`, `address_refused`, and those of `Proxy.start`
 */
export async function startSidecar(
  config: SidecarConfig,
  dependencies: SidecarDependencies = {},
): Promise<RunningSidecar> {
  const { clock = steadyClock, logger = silentLogger, probe = realProbe, random = Math.random } = dependencies;
  const { realm, zone } = config;
  const stateDir = resolve(config.stateDir);
  const address = config.address ?? (await ownAddress(config.atlas.urls));
  const host = { host: config.host, address, zone };
  const metrics = createSidecarMetrics();
  metrics.info.set({ version: VERSION, host: host.host, realm }, 1);
  const { promise: ended, resolve: end } = Promise.withResolvers<Fault | undefined>();

  /** How to end what has begun, in order of birth. */
  const undo: (() => Promise<void> | void)[] = [];
  const undoAll = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  let stopping: Promise<void> | undefined;
  const finish = (reason: Fault | undefined): Promise<void> => {
    stopping ??= undoAll().finally(() => end(reason));
    return stopping;
  };
  try {
    const lock = await lockStateDirectory(stateDir);
    undo.push(() => lock.release());
    // both sockets first: a busy port is known before HAProxy is touched
    const doors = { admin: notYet, socket: notYet };
    const socketPath = join(stateDir, FILES.socket);
    const admin = serveTcp(config.admin, (request) => doors.admin(request));
    undo.push(() => admin.stop());
    const socket = serveSocket(socketPath, (request) => doors.socket(request));
    undo.push(() => socket.stop());

    const directory = join(stateDir, FILES.haproxy);
    const accessFile = openAccessFile({ path: join(stateDir, FILES.access), clock, logger });
    undo.push(() => accessFile.close());
    let knows = (_service: string): boolean => false;
    const proxy = createProxy({
      directory,
      bind: formatAddress(config.bind),
      haproxy: config.haproxy,
      logger,
      clock,
      onAccess(record) {
        accessFile.add(record);
        countRequest(metrics, record, knows);
      },
    });
    // an HAProxy that was there before stays, whatever goes wrong here
    let traffic: "keep" | "end" = (await runsAlready(directory)) ? "keep" : "end";
    undo.push(() => proxy.stop(traffic));
    const agent = await startAgent({
      realm,
      host,
      atlas: config.atlas,
      stateFile: join(stateDir, FILES.state),
      proxy,
      proxyRuns: () => runsAlready(directory),
      onFatal: (fault) => void finish(fault),
      metrics,
      clock,
      logger,
      probe,
      random,
    });
    undo.push(() => agent.stop());
    traffic = config.haproxyOnStop;
    knows = (service) => agent.knows(service);

    const info = (): SidecarInfo => {
      const { atlas, generation, revision } = agent.status();
      const router = `http://${formatAddress(config.bind)}`;
      return { realm, ...host, version: VERSION, router, atlas, generation, revision };
    };
    const options: AdminOptions = {
      agent,
      info,
      metrics: async () => `${await metrics.registry.metrics()}\n${await proxy.metrics().catch(unanswered)}`,
      logger,
      // told to others, who go by the time of day
      now: () => systemClock.now(),
    };
    const names = [host.host, host.address, config.admin.host];
    doors.admin = adminHandler(options, names, socketPath);
    doors.socket = socketHandler(options);

    // the doors close first: whoever comes now is told that nobody is there, not that something failed
    undo.push(() => Promise.all([admin.stop(), socket.stop()]).then(() => undefined));
    return {
      get info() {
        return info();
      },
      admin: admin.at,
      socket: socket.at,
      retry: () => agent.retry(),
      ended,
      stop: () => finish(undefined),
    };
  } catch (error) {
    await undoAll();
    throw error;
  }
}

const notYet: Handler = async (request) => {
  const problem = new ProblemFault("unavailable", "the sidecar is starting", { headers: { "retry-after": "1" } });
  return problemOf(problem, requestIdOf(request.headers), () => undefined);
};

/** Our own metrics are wanted most when HAProxy gives none. */
function unanswered(error: unknown): string {
  return `# HAProxy does not answer: ${describeError(error).replaceAll("\n", " ")}\n`;
}

async function runsAlready(directory: string): Promise<boolean> {
  return (await findRunning(pathsIn(directory))) !== undefined;
}
