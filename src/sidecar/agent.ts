// The agent of a host, wired: what Atlas says goes through self-preservation into HAProxy, and back goes what HAProxy runs.
import { type AtlasClientOptions, createAtlasClient } from "../core/api/atlas-client.ts";
import { type Watch, watchAtlas, type WatchStatus } from "../core/api/watch-client.ts";
import type { Clock } from "../core/lib/clock.ts";
import { describeError, Fault } from "../core/lib/errors.ts";
import type { Logger } from "../core/lib/logger.ts";
import { VERSION } from "../core/lib/version.ts";
import type { Rejection } from "../core/model/agent.ts";
import type { Why } from "../core/model/local.ts";
import { formatPosition, type Position } from "../core/model/position.ts";
import type { Delta, Snapshot } from "../core/model/snapshot.ts";
import type { Proxy } from "../core/haproxy/proxy.ts";
import { createAcks } from "./acks.ts";
import { type Application, createApplier } from "./applier.ts";
import { HostState } from "./host-state.ts";
import type { Host } from "./local-instance.ts";
import { LocalInstances } from "./local-instances.ts";
import type { SidecarMetrics } from "./metrics.ts";
import { createPreserver } from "./preserver.ts";
import type { Probe } from "./probe.ts";
import { createStateWriter, readState } from "./state-file.ts";
import { explain } from "./why.ts";

/**
 * How long HAProxy's first configuration waits for Atlas, in ms: the state on disk may be a second old, and a drain that was
 * acknowledged in that second must hold. Without Atlas the wait ends with the first refused connections.
 */
const FIRST_WORD_MS = 1_000;

/** Proxy reloads at most every 2 s: within half of that, in ms, it is the same reload. */
const SAME_RELOAD_MS = 1_000;

export type AgentOptions = {
  readonly realm: string;
  readonly host: Host;
  readonly atlas: AtlasClientOptions;
  /** Where the state is kept. */
  readonly stateFile: string;
  readonly proxy: Proxy;
  /** Whether HAProxy serves already, from before. */
  readonly proxyRuns: () => Promise<boolean>;
  /** HAProxy could not be started after `startAgent` had returned. */
  readonly onFatal: (fault: Fault) => void;
  readonly metrics: SidecarMetrics;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly probe: Probe;
  readonly random: () => number;
};

/** Where an agent stands. */
export type AgentStatus = {
  readonly atlas: { readonly connected: boolean; readonly url?: string };
  readonly generation: number;
  readonly revision: number;
  /** HAProxy runs a state of the registry, from Atlas or from disk. */
  readonly ready: boolean;
  /** What is wrong, in words. */
  readonly troubles: readonly string[];
};

export interface Agent {
  readonly locals: LocalInstances;
  status(): AgentStatus;
  /** True when this host routes that service. */
  knows(service: string): boolean;
  /** The registry as this host believes it, held instances included. */
  snapshot(): Snapshot;
  why(service: string): Promise<Why>;
  /** Asks Atlas again at once, where that was to wait. */
  retry(): void;
  /** Ends everything but HAProxy. */
  stop(): Promise<void>;
}

/**
 * Reads the state on disk, begins to follow Atlas and starts HAProxy with what is known then.
 * @throws Fault of the state file and of `Proxy.start`; nothing is left then
 */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  const { realm, host, atlas, stateFile, proxy, metrics, clock, logger, probe, random } = options;
  const kept = await readState(stateFile, realm, clock, logger);
  const state = new HostState(realm, host.host, kept);
  let watch: Watch | undefined;
  let status: WatchStatus = { kind: "connecting" };
  let runs: Position | undefined;
  let rejected: readonly Rejection[] = [];
  let lastReload: Why["lastReload"] = null;
  const firstWord = Promise.withResolvers<void>();
  const heard = Promise.withResolvers<void>();
  let refusals = 0;

  const connected = (): boolean => status.kind === "connected";
  const changed = (urgent = false): void => {
    applier.request(urgent);
    writer.request();
  };

  const writer = createStateWriter(
    stateFile,
    () => ({
      view: state.heard ? state.view : undefined,
      locals: state.locals,
      agents: state.agents,
      disabled: state.disabled,
    }),
    clock,
    logger,
  );
  const acks = createAcks({
    host: host.host,
    clock,
    logger,
    random,
    replica: () => (status.kind === "connected" ? status.client : undefined),
  });
  const applier = createApplier({
    proxy,
    clock,
    logger,
    random,
    target: () => ({ desired: state.desired(), position: state.position }),
    onApplied: (application) => onApplied(application),
    onFailure: () => metrics.applyFailures.inc(),
  });
  const preserver = createPreserver({ state, clock, logger, metrics, probe, random, changed: () => changed() });
  const locals = new LocalInstances({
    state,
    host,
    client: createAtlasClient(atlas),
    clock,
    logger,
    metrics,
    probe,
    random,
    connected,
    changed: () => changed(),
  });

  const onApplied = (application: Application): void => {
    const { applied, position, urgent, tookMs } = application;
    runs = position;
    metrics.apply.observe(tookMs / 1_000);
    metrics.appliedRevision.set(position.revision);
    metrics.rejected.set(applied.rejected.filter(({ instance }) => instance === undefined).length);
    for (const { service, instance, error } of applied.rejected) {
      const known = rejected.some((rejection) => rejection.service === service && rejection.error === error);
      if (known) continue;
      if (instance !== undefined) logger.warn({ service, instance }, error);
      else logger.error({ service }, `HAProxy refuses this definition, the last good one stays: ${error}`);
    }
    rejected = applied.rejected;
    if (applied.reloaded) noteReload(applied.reasons);
    logger.debug({ position: formatPosition(position), tookMs }, "applied");
    acks.applied(
      {
        generation: position.generation,
        revision: position.revision,
        rejected: applied.rejected.map((rejection) => ({ ...rejection, error: rejection.error.slice(0, 2_000) })),
        reloaded: applied.reloaded,
        tookMs,
      },
      urgent,
    );
  };

  const noteReload = (reasons: readonly string[]): void => {
    const now = clock.now();
    // changes that came together are told of the same reload one after the other; two reloads are never that close
    const same = lastReload !== null && now - Date.parse(lastReload.at) < SAME_RELOAD_MS;
    lastReload = { at: new Date(now).toISOString(), reasons: [...reasons] };
    if (!same) metrics.reloads.inc();
  };

  const onState = (snapshot: Snapshot, delta: Delta | undefined): void => {
    const previous = state.view.snapshot;
    preserver.take(snapshot, delta);
    locals.take(snapshot, previous);
    metrics.revision.set(snapshot.revision);
    changed(delta?.ack === true);
    firstWord.resolve();
    heard.resolve();
  };

  const onStatus = (next: WatchStatus): void => {
    status = next;
    metrics.connected.set(connected() ? 1 : 0);
    if (next.kind === "connected") {
      acks.connected();
      locals.connected();
    }
    if (next.kind === "waiting") {
      refusals += 1;
      if (refusals >= atlas.urls.length) firstWord.resolve();
    }
  };

  const startProxy = async (): Promise<void> => {
    await applier.start();
    preserver.start();
    locals.start();
    writer.request();
  };
  const fatal = (error: unknown): void => {
    const fault = error instanceof Fault ? error : undefined;
    options.onFatal(fault ?? new Fault({ code: "haproxy_failed", message: describeError(error), cause: error }));
  };

  const stop = async (): Promise<void> => {
    await watch?.stop();
    acks.stop();
    preserver.stop();
    await locals.stop();
    applier.stop();
    writer.stop();
  };

  try {
    watch = watchAtlas(
      {
        ...atlas,
        realm,
        clock,
        logger,
        random,
        agent: { host: host.host, boot: crypto.randomUUID(), zone: host.zone, version: VERSION },
      },
      {
        onState,
        onHeartbeat: ({ agents }) => {
          if (state.countAgents(agents, clock.now())) changed();
        },
        onStatus,
      },
    );
    const tooLong = clock.after(FIRST_WORD_MS, firstWord.resolve);
    await firstWord.promise;
    tooLong();
    if (state.heard || !(await options.proxyRuns())) await startProxy();
    else {
      logger.error(
        "nothing is known of the registry, and an HAProxy from before serves: it is left alone until Atlas speaks",
      );
      void heard.promise.then(startProxy).catch(fatal);
    }
  } catch (error) {
    await stop();
    throw error;
  }

  const troubles = (): readonly string[] => [
    ...(status.kind === "waiting" ? [`not following Atlas: ${status.failure.message}`] : []),
    ...(runs !== undefined && !proxy.alive ? ["HAProxy does not run"] : []),
    ...(applier.failure === undefined ? [] : [`HAProxy does not run the newest state: ${applier.failure.message}`]),
    ...(writer.trouble === undefined ? [] : [`the state cannot be written: ${writer.trouble}`]),
  ];

  return {
    locals,
    status: () => ({
      atlas: { connected: connected(), ...(status.kind === "connected" ? { url: status.url } : {}) },
      generation: state.position.generation,
      revision: state.position.revision,
      // generation 0 is the empty state from before Atlas was ever heard
      ready: runs !== undefined && runs.generation > 0 && proxy.alive,
      troubles: troubles(),
    }),
    knows: (service) => state.knows(service),
    snapshot() {
      const { services, instances } = state.desired();
      return { ...state.view.snapshot, services, instances };
    },
    async why(service) {
      // what is believed can be told although HAProxy does not answer
      const silence: string[] = [];
      const servers = await proxy.servers(service).catch((error: unknown) => {
        silence.push(`HAProxy does not answer: ${describeError(error)}`);
        return [];
      });
      return explain({
        service,
        state,
        servers,
        connected: connected(),
        rejected,
        lastReload,
        notes: [...silence, ...troubles()],
        said: (id) => locals.said(id),
        problem: (id) => locals.problem(id),
        now: clock.now(),
      });
    },
    retry() {
      // once it follows again, whatever waits for Atlas goes with it
      watch?.retry();
    },
    async stop() {
      await stop();
      try {
        await writer.flush();
      } catch (error) {
        logger.error(`the state could not be written: ${describeError(error)}`);
      }
    },
  };
}
