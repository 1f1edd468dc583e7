// `smartstack serve` for a TypeScript service: logs, application, port, registration, in this order, so that whatever is wrong
// is said before anything is reachable; and backwards at the end.
import { hostname } from "node:os";
import { createSidecarClient } from "../core/api/sidecar-client.ts";
import { addressVariable } from "../core/client/core.ts";
import { smartClient } from "../core/client/index.ts";
import { formatHost } from "../core/lib/address.ts";
import { type Clock, systemClock } from "../core/lib/clock.ts";
import { describeError, Fault } from "../core/lib/errors.ts";
import type { Running } from "../core/lib/running.ts";
import type { SidecarInfo } from "../core/model/local.ts";
import { Application } from "../core/service/application.ts";
import type { ResolvedConfig } from "../core/service/config.ts";
import type { SmartService } from "../core/service/smart-service.ts";
import { adoptSurroundings } from "../core/service/surroundings.ts";
import { assume, contradiction, firstWord } from "./first-word.ts";
import { listen, type Listener } from "./listener.ts";
import { whereFrom } from "./load.ts";
import { type LogsConfig, openLogs, type ServiceLogs } from "./logs.ts";
import type { Manifest } from "./manifest.ts";
import { Registration } from "./registration.ts";

export type ServeConfig = {
  readonly service: SmartService;
  readonly manifest: Manifest;
  readonly directory: string;
  readonly resolved: ResolvedConfig;
  /** Undefined: the sidecar's, else `local`. */
  readonly realm: string | undefined;
  /** Undefined: the sidecar's, else this machine's name. */
  readonly host: string | undefined;
  /** Undefined: the agent's address, else 127.0.0.1. */
  readonly listen: string | undefined;
  /** 0 for a free one. */
  readonly port: number;
  /** The sidecar's socket. */
  readonly sidecar: string;
  readonly logs: LogsConfig;
  /** Ends a start that takes too long: the service's own part of it may wait for ever. */
  readonly interrupt?: AbortSignal | undefined;
};

export interface RunningService extends Running {
  readonly port: number;
  /** Opens the log files anew. */
  reopenLogs(): Promise<void>;
  /** The service threw where nobody catches: the log has it when this returns. */
  lastWords(error: unknown, event: string): void;
}

/** `ended` tells the reason of a stop that nobody from outside asked for. */
interface Stoppable extends RunningService {
  stop(reason?: Fault): Promise<void>;
}

/** How long answers carry `Connection: close` before the port is closed, when requests keep coming, in ms. */
const CLOSING_MS = 1_000;
/** Nothing came for so long: nobody holds a connection he still uses, in ms. */
const QUIET_MS = 250;

/**
 * Starts a service; resolves when it answers, and when its sidecar was told if there is one.
 * @throws the reason of `interrupt`; Fault `config` for the sidecar of another realm; `log_dir`, `service_failed`, `address_in_use`, `listen_failed`
 */
export async function startServe(config: ServeConfig, clock: Clock = systemClock): Promise<RunningService> {
  const sidecar = createSidecarClient({ socket: config.sidecar });
  const info = await firstWord(sidecar, clock);
  const assumed = assume(config.realm, info?.realm, "local");
  const realm = assumed.value;
  adoptSurroundings({ realm, router: info?.router });
  const logs = openLogs(config.service.name, config.logs, clock);
  let application: Application | undefined;
  let listener: Listener;
  try {
    application = await startApplication(config, realm, info, logs, clock);
    const started = application;
    listener = listen(config.listen ?? info?.address ?? "127.0.0.1", config.port, (request, server) =>
      started.fetch(request, server),
    );
  } catch (error) {
    await application?.stop();
    await logs.close();
    throw error;
  }
  const tooEarly = Promise.withResolvers<Fault>();
  const registration = new Registration({
    service: config.service.name,
    port: listener.port,
    host: config.host,
    address: isWildcard(config.listen) ? undefined : config.listen,
    version: config.service.version,
    definition: config.manifest.definition,
    realm,
    sidecar,
    clock,
    logger: logs.logger,
    alone: aloneHint(config.service.name, realm, listener),
    onInfo: ({ address, router, realm: theirs }) => {
      const fault = contradiction("realm", assumed, theirs);
      if (fault !== undefined) {
        tooEarly.resolve(fault);
        throw fault;
      }
      if (theirs !== realm) return;
      adoptSurroundings({ realm, router });
      if (config.listen === undefined) listener.add(address);
    },
  });
  logs.logger.info(
    `${config.service.name} answers on http://${listener.addresses[0] ?? ""}:${listener.port} (realm ${realm})`,
  );
  await registration.start();
  const service = running(application, listener, registration, logs, clock);
  void tooEarly.promise.then((fault) => service.stop(fault));
  return service;
}

async function startApplication(
  config: ServeConfig,
  realm: string,
  info: SidecarInfo | undefined,
  logs: ServiceLogs,
  clock: Clock,
): Promise<Application> {
  const { interrupt } = config;
  const { promise: interrupted, reject: stop } = Promise.withResolvers<never>();
  const onInterrupt = (): void => stop(interrupt?.reason);
  interrupt?.addEventListener("abort", onInterrupt, { once: true });
  try {
    interrupt?.throwIfAborted();
    const starting = Application.start(config.service, {
      realm,
      resolved: config.resolved,
      logger: logs.logger,
      api: smartClient,
      clock,
      hostname: config.host ?? info?.host ?? hostname(),
      onAnswer: logs.onAnswer,
    });
    return await Promise.race([starting, interrupted]);
  } catch (error) {
    if (interrupt?.aborted && error === interrupt.reason) throw error;
    throw new Fault({
      code: "service_failed",
      message: `${config.service.name} could not be started: ${describeError(error)}`,
      hint: whereFrom(error, config.directory),
    });
  } finally {
    interrupt?.removeEventListener("abort", onInterrupt);
  }
}

function running(
  application: Application,
  listener: Listener,
  registration: Registration,
  logs: ServiceLogs,
  clock: Clock,
): Stoppable {
  let ending: Promise<void> | undefined;
  const { promise: ended, resolve: end } = Promise.withResolvers<Fault | undefined>();
  const shutDown = async (reason?: Fault): Promise<void> => {
    application.phase = "draining";
    await registration.drain();
    application.phase = "closing";
    await quiet(application, clock);
    await listener.stop(application.service.timeoutMs);
    await application.stop();
    await logs.flush();
    await registration.leave();
    logs.logger.info("stopped");
    await logs.close();
    end(reason);
  };
  return {
    port: listener.port,
    ended,
    stop: (reason?: Fault) => (ending ??= shutDown(reason)),
    reopenLogs: () => logs.reopen(),
    lastWords(error, event) {
      logs.logger.fatal({ err: error }, `the service failed outside of a request (${event}); it ends`);
      logs.flushSync();
    },
  };
}

/** Answers on, each answer closing its connection, until nothing comes any more. */
async function quiet(application: Application, clock: Clock): Promise<void> {
  const end = clock.now() + CLOSING_MS;
  while (clock.now() < end) {
    if (application.inFlight === 0 && clock.now() - application.answeredAt >= QUIET_MS) return;
    await clock.sleep(25);
  }
}

/** The smart client takes addresses from the environment, in the realm local alone. */
function aloneHint(service: string, realm: string, { addresses: [first = ""], port }: Listener): string | undefined {
  const address = isWildcard(first) ? "127.0.0.1" : formatHost(first);
  return realm === "local" ? `Until then ${addressVariable(service)}=http://${address}:${port} leads to it` : undefined;
}

function isWildcard(address: string | undefined): boolean {
  return address === "0.0.0.0" || address === "::";
}
