// Makes HAProxy run what is wanted, and keeps it so. One queue owns its files and sockets; wishes that come while it works are
// taken together, and each caller hears when his own, or a later one, was read back.
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type Cancel, systemClock } from "../lib/clock.ts";
import { describeError, Fault } from "../lib/errors.ts";
import { serial } from "../lib/serial.ts";
import type { Rejection } from "../model/agent.ts";
import { type AccessLog, openAccessLog } from "./access-log.ts";
import { type Addresses, createAddresses } from "./addresses.ts";
import { findBinary, maxconnOf, openFilesLimit, threadsOf } from "./binary.ts";
import { type Candidates, createCandidates } from "./candidate.ts";
import { createHaproxy, type Haproxy } from "./haproxy.ts";
import { backendName, type Layout, layoutOf, serverName } from "./layout.ts";
import { plan, type Running, type Wanted } from "./plan.ts";
import { pathsIn, watchHaproxy } from "./process.ts";
import type { Applied, Desired, Proxy, ProxyOptions, ServerStatus } from "./proxy.ts";
import { parseStatus } from "./read-back.ts";
import type { RenderContext } from "./render.ts";
import { runBatch } from "./runtime-api.ts";
import { validate } from "./validate.ts";

const RELOAD_SPACING_MS = 2_000;
/** Every reload leaves an old worker behind until its last client is gone: when they pile up, reload rarely. */
const CROWDED_SPACING_MS = 30_000;
const CROWD = 3;
/** Deleting a server right after it was taken out has crashed HAProxy (haproxy #2298, #2323, #2378). */
const DELETE_AFTER_MS = 10_000;
/** How often all is read back, in case somebody else changed it. */
const RECONCILE_MS = 30_000;
const RESTART_PAUSES_MS = [0, 50, 100, 200, 400, 1_000];

type Waiter = {
  readonly sequence: number;
  readonly resolve: (applied: Applied) => void;
  readonly reject: (error: unknown) => void;
  readonly reasons: string[];
};

type Engine = {
  readonly haproxy: Haproxy;
  readonly candidates: Candidates;
  readonly addresses: Addresses;
  readonly checkDirectory: string;
};

export function createProxy(options: ProxyOptions): Proxy {
  const { logger, clock = systemClock } = options;
  const queue = serial();
  let engine: Engine | undefined;
  let accessLog: AccessLog | undefined;
  let watch: { stop(): void } | undefined;
  let desired: Desired | undefined;
  let sequence = 0;
  let waiters: Waiter[] = [];
  let layout: Layout | undefined;
  let wanted: Wanted | undefined;
  let scheduled = false;
  let stopped = false;
  let reloadedAt = Number.NEGATIVE_INFINITY;
  let readAll = true;
  const stale = new Set<string>();
  /** `BACKEND/SERVER` → since when it is out, waiting to be deleted. */
  const leaving = new Map<string, number>();
  const timers = new Map<"reload" | "delete" | "reconcile", Cancel>();

  const later = (name: "reload" | "delete" | "reconcile", ms: number, run: () => void): void => {
    timers.get(name)?.();
    timers.set(name, clock.after(Math.max(0, ms), run));
  };

  /** Asks for one more pass; any number of wishes before it begins share it. */
  const kick = (): void => {
    if (scheduled || stopped) return;
    scheduled = true;
    void queue.run(pass);
  };

  const pass = async (): Promise<void> => {
    scheduled = false;
    if (stopped || engine === undefined || desired === undefined) return;
    const goal = sequence;
    try {
      const outcome = await converge(engine, desired);
      if (outcome.kind === "settled") settle(goal, outcome.rejected);
      else later("reload", outcome.waitMs, kick);
    } catch (error) {
      readAll = true;
      // a HAProxy that just died is started again, and then all of this is done again
      if (error instanceof Fault && error.code === "haproxy_unreachable" && engine.haproxy.processes === undefined)
        return;
      logger.error({ err: error }, "HAProxy could not be changed");
      fail(goal, error);
    }
  };

  const settle = (goal: number, rejected: readonly Rejection[]): void => {
    const [done, rest] = [waiters.filter((one) => one.sequence <= goal), waiters.filter((one) => one.sequence > goal)];
    waiters = rest;
    for (const { resolve, reasons } of done) resolve({ rejected, reloaded: reasons.length > 0, reasons });
  };

  const fail = (goal: number, error: unknown): void => {
    const [failed, rest] = [
      waiters.filter((one) => one.sequence <= goal),
      waiters.filter((one) => one.sequence > goal),
    ];
    waiters = rest;
    for (const { reject } of failed) reject(error);
  };

  const accept = async ({ addresses, candidates, haproxy }: Engine, state: Desired): Promise<readonly Rejection[]> => {
    await addresses.refresh(state.instances.map(({ address }) => address));
    layout = layoutOf(state, (address) => addresses.of(address), layout);
    const accepted = await candidates.accept(layout, state.agents, haproxy.loaded);
    wanted = accepted.wanted;
    const lost = state.instances
      .filter(({ address }) => addresses.of(address) === undefined)
      .map(({ service, instance, address }) => ({
        service,
        error: `instance ${instance} is left out: its address ${address} does not resolve on this host`,
      }));
    return [...accepted.rejected, ...lost];
  };

  const converge = async (
    current: Engine,
    state: Desired,
  ): Promise<
    { kind: "settled"; rejected: readonly Rejection[] } | { readonly kind: "waiting"; readonly waitMs: number }
  > => {
    const { haproxy } = current;
    const rejected = await accept(current, state);
    if (wanted === undefined) return { kind: "settled", rejected };
    /** Backends that were read anew, or undefined: all. */
    let seen: Set<string> | undefined = readAll ? undefined : new Set(stale);
    let running = await haproxy.read(seen);
    readAll = false;
    stale.clear();
    // before any change, so that a reload or a restart, whenever it comes, carries it
    await haproxy.write(wanted);
    let reloaded = false;
    for (let round = 1; ; round += 1) {
      const next = plan(running, wanted);
      if (next.kind === "none") break;
      // right after a reload commands only repeat what the worker before it was told already
      if (!reloaded && next.commands.some(({ takes }) => takes)) await haproxy.noteTaken();
      const failures = next.commands.length === 0 ? [] : await haproxy.execute(next.commands);
      if (failures.length > 0) logger.warn({ failures }, "HAProxy refused changes at run time");
      const touched = new Set(next.commands.map(({ backend }) => backend));
      running = await haproxy.read(touched);
      seen = seen?.union(touched);
      const stuck = round > 3 && next.kind === "runtime";
      if (stuck && round > 4) {
        throw new Fault({
          code: "haproxy_failed",
          message: `HAProxy does not take changes: ${failures[0] ?? next.commands[0]?.text ?? ""}`,
        });
      }
      if (next.kind === "reload" || stuck) {
        const waitMs = await reloadWait(haproxy);
        if (waitMs > 0) return { kind: "waiting", waitMs };
        await reload(haproxy, wanted, next.kind === "reload" ? next.reasons : ["a change at run time did not take"]);
        reloaded = true;
        running = await haproxy.read();
        seen = undefined;
      }
    }
    await haproxy.untilOldAreDone();
    noteLeaving(running, wanted, seen);
    return { kind: "settled", rejected };
  };

  const reloadWait = async (haproxy: Haproxy): Promise<number> => {
    await haproxy.refreshProcesses();
    const crowded = (haproxy.processes?.old.length ?? 0) > CROWD;
    return reloadedAt + (crowded ? CROWDED_SPACING_MS : RELOAD_SPACING_MS) - clock.now();
  };

  const reload = async (haproxy: Haproxy, target: Wanted, reasons: readonly string[]): Promise<void> => {
    const start = clock.now();
    reloadedAt = start;
    await haproxy.reload(target);
    reloadedAt = clock.now();
    leaving.clear();
    for (const { reasons: told } of waiters) told.push(...reasons);
    logger.info({ reasons, tookMs: reloadedAt - start }, `HAProxy reloaded: ${reasons.slice(0, 3).join("; ")}`);
  };

  const noteLeaving = (running: Running, target: Wanted, seen: ReadonlySet<string> | undefined): void => {
    const present = new Map([...target.layout.backends.values()].map(({ name, servers }) => [name, servers]));
    const now = new Set<string>();
    for (const backend of seen ?? running.servers.keys()) {
      const wantedNames = new Set(present.get(backend)?.map(({ name }) => name));
      for (const { name, maintenance } of running.servers.get(backend)?.values() ?? []) {
        if (maintenance && !wantedNames.has(name)) now.add(`${backend}/${name}`);
      }
    }
    for (const key of leaving.keys()) {
      if (!now.has(key) && (seen === undefined || seen.has(backendOf(key)))) leaving.delete(key);
    }
    for (const key of now) if (!leaving.has(key)) leaving.set(key, clock.now());
    const first = Math.min(...leaving.values());
    if (Number.isFinite(first)) later("delete", first + DELETE_AFTER_MS - clock.now(), () => void queue.run(sweep));
  };

  /** Deletes what left long enough ago. A server with a connection still open refuses, and is asked again. */
  const sweep = async (): Promise<void> => {
    if (stopped || engine?.haproxy.processes === undefined) return;
    const due = [...leaving].filter(([, since]) => since + DELETE_AFTER_MS <= clock.now()).map(([key]) => key);
    const commands = due.map((key) => ({ text: `del server ${key}`, backend: backendOf(key), takes: false }));
    try {
      await engine.haproxy.execute(commands);
      for (const { backend } of commands) stale.add(backend);
      for (const key of due) leaving.set(key, clock.now());
    } catch (error) {
      logger.debug({ err: error }, "servers that left could not be deleted; asked again later");
      readAll = true;
    }
    kick();
  };

  const onNotice = (line: string): void => {
    const verdict = /^Server ([^/\s]+)\/\S+ is (?:UP|DOWN)(, reason)?/.exec(line);
    // what has a reason is HAProxy's own finding; the rest echoes our commands
    logger[verdict?.[2] === undefined ? "debug" : "info"](`HAProxy: ${line}`);
    const backend = verdict?.[1];
    if (backend === undefined) return;
    // its verdict also decides where pins may go
    stale.add(backend);
    kick();
  };

  const onDeath = (): void => {
    if (stopped || engine === undefined) return;
    engine.haproxy.forget();
    logger.error("HAProxy died; it is started again");
    void queue.run(restart);
  };

  const restart = async (attempt = 0): Promise<void> => {
    if (stopped || engine === undefined || wanted === undefined) return;
    // the port of a killed master is free only when its workers have noticed
    await clock.sleep(RESTART_PAUSES_MS[Math.min(attempt, RESTART_PAUSES_MS.length - 1)] ?? 1_000);
    try {
      await engine.haproxy.start(wanted);
    } catch (error) {
      logger.error({ err: error }, `HAProxy could not be started again: ${describeError(error)}`);
      return restart(attempt + 1);
    }
    attach(engine.haproxy);
    leaving.clear();
    readAll = true;
    kick();
  };

  const attach = (haproxy: Haproxy): void => {
    const master = haproxy.processes?.master;
    if (master !== undefined) watch = watchHaproxy(haproxy.paths, master, clock, onDeath);
  };

  const build = async (): Promise<Engine> => {
    const paths = pathsIn(options.directory);
    const binary = await findBinary(options.haproxy);
    const context: RenderContext = {
      bind: options.bind,
      header: options.header ?? "Runscope-Service",
      maxconn: options.maxconn ?? maxconnOf(openFilesLimit()),
      threads: options.threads ?? threadsOf(),
      prometheus: binary.prometheus,
      metricsSocket: paths.metrics,
    };
    const checkDirectory = join(paths.directory, "check");
    await mkdir(paths.directory, { recursive: true });
    return {
      haproxy: createHaproxy({ binary: binary.path, paths, context, clock, logger }),
      candidates: createCandidates({
        context,
        validate: (rendered) => validate(binary.path, rendered, checkDirectory),
      }),
      addresses: createAddresses({ clock, onLate: kick }),
      checkDirectory,
    };
  };

  const apply: Proxy["apply"] = (state) => {
    if (stopped) return Promise.reject(new Fault({ code: "stopped", message: "the proxy was stopped" }));
    desired = state;
    sequence += 1;
    const promise = new Promise<Applied>((resolve, reject) => {
      waiters.push({ sequence, resolve, reject, reasons: [] });
    });
    kick();
    return promise;
  };

  const reconcile = (): void => {
    readAll = true;
    kick();
    later("reconcile", RECONCILE_MS, reconcile);
  };

  return {
    async start(state) {
      await queue.run(async () => {
        engine = await build();
        const { haproxy } = engine;
        const adopted = await haproxy.adopt();
        if (!adopted) {
          await accept(engine, state);
          if (wanted !== undefined) await haproxy.start(wanted);
        }
        logger.info({ pid: haproxy.processes?.master }, adopted ? "HAProxy adopted" : "HAProxy started");
        attach(haproxy);
        accessLog = openAccessLog({
          path: haproxy.paths.accessPipe,
          onRecord: (record) => options.onAccess?.(record),
          onNotice,
          clock,
        });
      });
      later("reconcile", RECONCILE_MS, reconcile);
      return apply(state);
    },
    apply,
    async servers(service) {
      const { haproxy } = running(engine);
      const ask = async (): Promise<string> => {
        const target = haproxy.processes?.worker;
        if (target === undefined) throw new Fault({ code: "haproxy_unreachable", message: "HAProxy does not run" });
        const [answer = ""] = await runBatch({
          socket: haproxy.paths.master,
          target,
          commands: [`show stat ${service === undefined ? -1 : backendName(service)} 4 -1`],
        });
        return answer;
      };
      // a reload refuses connections for a moment: the queue knows when it is over
      const all = parseStatus(await ask().catch(() => queue.run(ask)));
      // those that only wait to be deleted are gone for everybody else
      const present = all.filter(
        ({ service, instance }) => !leaving.has(`${backendName(service)}/${serverName(instance)}`),
      );
      return withRegisteredWeights(present, wanted?.layout);
    },
    async metrics() {
      const { haproxy } = running(engine);
      const response = await fetch("http://localhost/metrics?scope=global&scope=frontend&scope=backend", {
        unix: haproxy.paths.metrics,
        signal: AbortSignal.timeout(5_000),
      });
      return response.text();
    },
    async stop(traffic) {
      stopped = true;
      for (const cancel of timers.values()) cancel();
      timers.clear();
      watch?.stop();
      await queue.idle();
      accessLog?.close();
      accessLog = undefined;
      if (traffic === "end") await engine?.haproxy.end();
      fail(sequence, new Fault({ code: "stopped", message: "the proxy was stopped" }));
    },
  };
}

/** Of `BACKEND/SERVER`. */
function backendOf(key: string): string {
  return key.slice(0, key.indexOf("/"));
}

/** HAProxy's weights are the registry's, reduced; whoever reads them expects the registry's. */
function withRegisteredWeights(status: readonly ServerStatus[], layout: Layout | undefined): readonly ServerStatus[] {
  const weights = new Map(
    [...(layout?.backends.values() ?? [])].flatMap(({ service, servers }) =>
      servers.map(({ instance, weight, share }): [string, { weight: number; share: number }] => [
        `${service}/${instance}`,
        { weight, share },
      ]),
    ),
  );
  return status.map((server) => {
    const known = weights.get(`${server.service}/${server.instance}`);
    return known?.share === server.weight ? { ...server, weight: known.weight } : server;
  });
}

function running(engine: Engine | undefined): Engine {
  if (engine === undefined) throw new Fault({ code: "haproxy_unreachable", message: "HAProxy was not started" });
  return engine;
}
