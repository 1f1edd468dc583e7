// Atlas: the registry behind HTTP. This file wires its parts and owns their order of birth and death.
import { createAtlasClient } from "../core/api/atlas-client.ts";
import type { Address } from "../core/lib/address.ts";
import { type Clock, steadyClock, systemClock } from "../core/lib/clock.ts";
import { describeError, type Fault } from "../core/lib/errors.ts";
import { type Logger, silentLogger } from "../core/lib/logger.ts";
import type { Running } from "../core/lib/running.ts";
import { Access } from "./access.ts";
import { Agents } from "./agents.ts";
import { Leases } from "./leases.ts";
import { AuditTrail } from "./audit-trail.ts";
import { Backups } from "./backup.ts";
import { CatchUp } from "./catch-up.ts";
import { Limits } from "./limits.ts";
import { type Certificate, sameCertificate } from "./certificate.ts";
import { metadataQueue } from "./metadata-queue.ts";
import { PortOperations } from "./port-operations.ts";
import { SettingsOperations } from "./settings-operations.ts";
import { createAtlasMetrics } from "./metrics.ts";
import { Operations } from "./operations.ts";
import type { Parts } from "./parts.ts";
import { PeerFeed } from "./peer-feed.ts";
import { hearPeers, Peers } from "./peers.ts";
import { Propagation } from "./propagation.ts";
import { Registry } from "./registry.ts";
import { createRouter } from "./router.ts";
import { agentRoutes } from "./routes-agents.ts";
import { backupRoutes } from "./routes-backup.ts";
import { healthRoutes } from "./routes-health.ts";
import { metadataRoutes } from "./routes-metadata.ts";
import { peerRoutes } from "./routes-peers.ts";
import { registryRoutes } from "./routes-registry.ts";
import { type SecretFiles, Secrets } from "./secrets.ts";
import { serve, type Server } from "./server.ts";
import { createStores, type StoreConfig } from "./stores.ts";
import { Waits } from "./waits.ts";
import { WatchHub } from "./watch-hub.ts";

export type AtlasConfig = {
  /** Port 0 asks the system for a free one. */
  readonly listen: Address;
  readonly realm: string;
  /** Where the registry lies. */
  readonly store: StoreConfig;
  /** Tokens, certificates and how they are read again. @default none: everybody may do everything */
  readonly secrets?: SecretFiles;
  /** Where the other replicas reach this one. @default where it listens */
  readonly advertise?: string | undefined;
};

/** @default the real clock, and no log */
export type AtlasDependencies = { readonly clock?: Clock; readonly logger?: Logger };

export type RunningAtlas = Running & {
  /** Reads tokens and certificates again; streams of tokens that are gone end. What is not usable is told in the log. */
  reload(): Promise<void>;
  /** Where it listens. */
  readonly url: string;
};

/**
 * Starts Atlas. When the promise resolves it answers; when it rejects nothing of it is left.
 * @throws Fault `store_*` and `unavailable` of the store, `address_in_use` or `address_refused` of the socket
 */
export async function startAtlas(config: AtlasConfig, dependencies: AtlasDependencies = {}): Promise<RunningAtlas> {
  const { clock = systemClock, logger = silentLogger } = dependencies;
  // what asks how long ago something was; `clock` is for what says when it was
  const timer = dependencies.clock ?? steadyClock;
  const secrets = new Secrets(config.secrets);
  const access = new Access(secrets);
  tellExpiry(secrets.certificate, clock, logger);
  const limits = new Limits();
  const { live, meta } = await createStores(config.store, { realm: config.realm, clock, logger });
  const registry = new Registry({ realm: config.realm, live, meta, clock, logger });
  await registry.open();
  // reading ten thousand instances leaves 30 MB behind, which would stay for as long as little happens; 15 to 30 ms
  Bun.gc(true);
  const audit = new AuditTrail({ meta, clock, logger });
  const writes = { registry, live, meta, audit, metadata: metadataQueue(clock) };
  const operations = new Operations(writes);
  const settings = new SettingsOperations(writes, clock);
  const ports = new PortOperations(writes);
  const backups = new Backups(writes, clock);
  const peers = new Peers({
    live,
    clock: timer,
    logger,
    connect: (url) =>
      createAtlasClient({ urls: [url], token: () => secrets.peerTokens?.[0], tlsCa: () => secrets.tlsCa }),
  });
  const leases = new Leases({ live, clock: timer, logger, liveBoot: (replica, host) => peers.liveBoot(replica, host) });
  const expire = (host: string): Promise<void> => operations.expire(host);
  const agents = new Agents({ live, registry, clock: timer, logger, elsewhere: peers, expire });
  const waits = new Waits(agents, timer);
  const feed = new PeerFeed({ replica: live.replica, agents, waits, clock: timer });
  const catchUp = new CatchUp({ registry, clock: timer, logger, mayLag: config.store.kind === "cluster" });
  const metrics = createAtlasMetrics();
  const hub = new WatchHub({
    registry,
    clock: timer,
    logger,
    agents: () => agents.size,
    wantsAck: (since, revision) => waits.wantsAck(since, revision) || peers.wantsAck(since, revision),
    onEnd: (end) => {
      metrics.streamEnded(end);
      logger[end.by === "slow" ? "warn" : "debug"](end, "a watch stream ended");
    },
  });
  const degraded = (): readonly string[] => [
    ...registry.degraded(),
    ...[agents.degraded() ?? []].flat(),
    ...peers.degraded(),
  ];
  const parts: Parts = {
    registry,
    meta,
    operations,
    settings,
    ports,
    backups,
    hub,
    limits,
    leases,
    agents,
    waits,
    feed,
    catchUp,
    propagation: new Propagation(timer),
    store: config.store.kind,
    replicas: () => Math.max(1, live.replicas().size),
    clock,
    degraded,
  };
  metrics.observe(parts, () => secrets.certificate);
  const routes = [
    ...registryRoutes(parts),
    ...agentRoutes(parts),
    ...metadataRoutes(parts),
    ...backupRoutes(parts),
    ...peerRoutes(parts),
  ];
  const tellStore = storeTeller(registry, logger);
  const respond = createRouter({
    routes: [...routes, ...healthRoutes(parts, metrics.registry, routes)],
    access,
    limits,
    onBug: (error, requestId) => logger.error({ err: error, requestId }, "a request failed by our fault"),
    onAnswer: (method, path, status, seconds) => {
      metrics.answered(method, path, status, seconds);
      tellStore();
      logger.debug({ method, path, status, seconds }, "answered");
    },
  });

  const endStreams = (): void => {
    waits.stop();
    catchUp.stop();
    hub.stop("Atlas is stopping");
    feed.stop("Atlas is stopping");
  };
  const stopParts = async (): Promise<void> => {
    endStreams();
    await peers.stop();
    leases.stop();
    agents.stop();
    await registry.close();
  };
  const server = await startServer(
    () => serve({ address: config.listen, respond, certificate: secrets.certificate }),
    stopParts,
  );
  try {
    await live.announce(config.advertise ?? server.url);
  } catch (error) {
    await server.stop();
    await stopParts();
    throw error;
  }
  peers.start(hearPeers({ agents, leases, hub }));

  const { promise: ended, resolve: end } = Promise.withResolvers<Fault | undefined>();
  let stopping: Promise<void> | undefined;
  return {
    url: server.url,
    ended,
    async reload() {
      const before = secrets.certificate;
      secrets.reload(logger);
      if (secrets.certificate !== undefined && !sameCertificate(secrets.certificate, before)) {
        renew(server, secrets.certificate, logger);
      }
      hub.endWhere((caller) => !access.holds(caller), "the token that opened this stream is no longer good for it");
    },
    stop() {
      stopping ??= (async () => {
        endStreams();
        await server.stop();
        await stopParts();
        end(undefined);
      })();
      return stopping;
    },
  };
}

/** A certificate that ends soon, in ms, is worth a line. */
const SOON_MS = 14 * 86_400_000;

function tellExpiry(certificate: Certificate | undefined, clock: Clock, logger: Logger): void {
  if (certificate === undefined || certificate.validTo.getTime() - clock.now() > SOON_MS) return;
  logger.warn(`the certificate ends on ${certificate.validTo.toISOString()}: renew it, then send SIGHUP`);
}

function renew(server: Server, certificate: Certificate, logger: Logger): void {
  try {
    server.renew(certificate);
    logger.info({ validTo: certificate.validTo }, "new connections get the new certificate");
    tellExpiry(certificate, systemClock, logger);
  } catch (error) {
    logger.error(`the new certificate cannot be used, the one before stays: ${describeError(error)}`);
  }
}

/** Logs that the stores begin to fail, and that they are well again; called after every answer. */
function storeTeller(registry: Registry, logger: Logger): () => void {
  let told = "";
  return () => {
    const trouble = registry.degraded().join("; ");
    if (trouble === told) return;
    told = trouble;
    if (trouble === "") logger.info("the store is well again");
    else logger.error(trouble);
  };
}

async function startServer<T>(start: () => T, undo: () => Promise<void>): Promise<T> {
  try {
    return start();
  } catch (error) {
    await undo();
    throw error;
  }
}
