// createProxy: one queue owns HAProxy's files and sockets; wishes that come while it works are taken together, and each caller
// hears when his own, or a later one, was read back. It also starts HAProxy again when that dies.
import { type Cancel, systemClock } from "../lib/clock.ts";
import { describeError, Fault } from "../lib/errors.ts";
import { serial } from "../lib/serial.ts";
import type { Rejection } from "../model/agent.ts";
import { type AccessLog, openAccessLog } from "./access-log.ts";
import { createEngine, type Engine } from "./engine.ts";
import type { Haproxy } from "./haproxy.ts";
import { backendName, type Layout, layoutOf, serverName } from "./layout.ts";
import type { Wanted } from "./plan.ts";
import { watchHaproxy } from "./process.ts";
import type { Desired, Proxy, ProxyOptions } from "./proxy.ts";
import { withRegisteredWeights } from "./read-back.ts";
import { createWaiters } from "./waiters.ts";

/** How often all is read back, in case somebody else changed it, and names are resolved again. */
const RECONCILE_MS = 30_000;
/** The port of a killed master is free only when its workers have noticed, within a tenth of a second. */
const RESTART_PAUSES_MS = [50, 100, 200, 400, 1_000];
/** So many tries may fail for that alone. */
const QUIET_RESTARTS = 3;
/** Then one line a minute. */
const RESTARTS_A_LINE = 60;

type Timer = "again" | "sweep" | "reconcile" | "restart";

export function createProxy(options: ProxyOptions): Proxy {
  const { logger, clock = systemClock } = options;
  const queue = serial();
  const waiters = createWaiters();
  const timers = new Map<Timer, Cancel>();
  let engine: Engine | undefined;
  let accessLog: AccessLog | undefined;
  let watch: { stop(): void } | undefined;
  let desired: Desired | undefined;
  let layout: Layout | undefined;
  let wanted: Wanted | undefined;
  let scheduled = false;
  let stopped = false;

  const later = (name: Timer, ms: number, run: () => void): void => {
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
    const { convergence, haproxy } = engine;
    const goal = waiters.newest;
    try {
      const { accepted, rejected } = await accept(engine, desired);
      const outcome = await convergence.run(accepted);
      if (outcome.kind === "done") waiters.settle(goal, rejected);
      else later("again", outcome.waitMs, kick);
      planSweep(engine);
    } catch (error) {
      convergence.distrust();
      // it died in the middle: it is started again, and then all of this is done again
      if (!haproxy.alive) return;
      logger.error({ err: error }, `HAProxy could not be changed: ${describeError(error)}`);
      waiters.fail(goal, error);
    }
  };

  const accept = async (
    { addresses, candidates, haproxy }: Engine,
    state: Desired,
  ): Promise<{ accepted: Wanted; rejected: readonly Rejection[] }> => {
    await addresses.refresh(state.instances.map(({ address }) => address));
    layout = layoutOf(state, (address) => addresses.of(address), layout);
    const { wanted: accepted, rejected } = await candidates.accept(layout, state.agents, haproxy.lastGood);
    wanted = accepted;
    const lost = layout.unresolved.map(({ service, instance, address }) => ({
      service,
      instance,
      error: `${instance} is left out: its address ${address} does not resolve on this host`,
    }));
    return { accepted, rejected: [...rejected, ...lost] };
  };

  const planSweep = ({ convergence }: Engine): void => {
    const at = convergence.sweepAt;
    if (at !== undefined) later("sweep", at - clock.now(), () => void queue.run(sweep));
  };

  const sweep = async (): Promise<void> => {
    if (stopped || engine === undefined) return;
    try {
      await engine.convergence.sweep();
    } catch (error) {
      logger.debug({ err: error }, "servers that left could not be deleted; tried again later");
    }
    kick();
  };

  const reconcile = (): void => {
    engine?.convergence.distrust();
    engine?.haproxy.trimErrors();
    kick();
    later("reconcile", RECONCILE_MS, reconcile);
  };

  const onNotice = (line: string): void => {
    const verdict = /^Server ([^/\s]+)\/\S+ is (?:UP|DOWN)(, reason)?/.exec(line);
    // what has a reason is HAProxy's own finding; the rest echoes our commands
    logger[verdict?.[2] === undefined ? "debug" : "info"](`HAProxy: ${line}`);
    if (verdict?.[1] === undefined) return;
    // its verdict also decides where pins may go
    engine?.convergence.distrust(verdict[1]);
    kick();
  };

  /** One try at a time, so that the queue is free for questions in between. */
  const restart = async (started: Engine, attempt = 0): Promise<void> => {
    const { haproxy, convergence } = started;
    if (stopped || wanted === undefined) return;
    try {
      await haproxy.start(wanted);
    } catch (error) {
      const pause = RESTART_PAUSES_MS[Math.min(attempt, RESTART_PAUSES_MS.length - 1)] ?? 1_000;
      const worthTelling = attempt === QUIET_RESTARTS || attempt % RESTARTS_A_LINE === RESTARTS_A_LINE - 1;
      logger[worthTelling ? "error" : "debug"](`HAProxy could not be started again: ${describeError(error)}`);
      later("restart", pause, () => void queue.run(() => restart(started, attempt + 1)));
      return;
    }
    convergence.restarted();
    attach(haproxy);
    kick();
  };

  /** Watches what now runs, and reads its log. */
  const attach = (haproxy: Haproxy): void => {
    const master = haproxy.processes?.master;
    if (stopped || master === undefined) return;
    watch = watchHaproxy(haproxy.paths, master, clock, {
      onEnd() {
        if (engine === undefined) return;
        const dead = engine;
        logger.error("HAProxy died; it is started again");
        void queue.run(() => restart(dead));
      },
      // a new worker knows only what the files say; when the reload was ours there is nothing left to do
      onReload() {
        engine?.convergence.distrust();
        kick();
      },
    });
    try {
      const { accessPipe: path } = haproxy.paths;
      accessLog ??= openAccessLog({ path, onRecord: (record) => options.onAccess?.(record), onNotice, clock });
    } catch (error) {
      // somebody deleted the pipe of a HAProxy that goes on
      logger.warn({ err: error }, "there is no access log until HAProxy is started anew");
    }
  };

  const apply: Proxy["apply"] = (state) => {
    if (stopped) return Promise.reject(new Fault({ code: "stopped", message: "the proxy was stopped" }));
    desired = state;
    const applied = waiters.add();
    kick();
    return applied;
  };

  /** Asks HAProxy itself; in a reload it refuses for a moment, and the queue knows when that is over. */
  const ask = async <T>(question: (haproxy: Haproxy) => Promise<T>): Promise<T> => {
    if (engine === undefined) throw new Fault({ code: "haproxy_unreachable", message: "HAProxy was not started" });
    const { haproxy } = engine;
    return question(haproxy).catch(() => queue.run(() => question(haproxy)));
  };

  return {
    async start(state) {
      await queue.run(async () => {
        engine = await createEngine(options, clock, {
          onLateAddress: kick,
          onReload: (reasons) => waiters.reloaded(reasons),
        });
        const { haproxy } = engine;
        const adopted = await haproxy.adopt();
        if (!adopted) await haproxy.start((await accept(engine, state)).accepted);
        logger.info({ haproxyPid: haproxy.processes?.master }, adopted ? "HAProxy adopted" : "HAProxy started");
        attach(haproxy);
      });
      later("reconcile", RECONCILE_MS, reconcile);
      return apply(state);
    },
    apply,
    async servers(service) {
      const all = await ask((haproxy) => haproxy.status(service));
      // those that only wait to be deleted are gone for everybody else
      const present = all.filter(
        (server) => engine?.convergence.isLeaving(backendName(server.service), serverName(server.instance)) !== true,
      );
      return wanted === undefined ? present : withRegisteredWeights(present, wanted.layout);
    },
    get alive() {
      return engine?.haproxy.alive === true;
    },
    metrics: () => ask((haproxy) => haproxy.metrics()),
    async stop(traffic) {
      stopped = true;
      for (const cancel of timers.values()) cancel();
      timers.clear();
      watch?.stop();
      await queue.idle();
      accessLog?.close();
      accessLog = undefined;
      if (traffic === "end") await engine?.haproxy.end();
      waiters.fail(waiters.newest, new Fault({ code: "stopped", message: "the proxy was stopped" }));
    },
  };
}
