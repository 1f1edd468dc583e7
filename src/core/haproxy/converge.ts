// The I/O around plan(): read what runs, do what is missing, read again, until nothing is missing.
import type { Clock } from "../lib/clock.ts";
import { describeError, Fault } from "../lib/errors.ts";
import type { Logger } from "../lib/logger.ts";
import { FILES } from "./render.ts";
import type { Command } from "./changes.ts";
import type { Haproxy } from "./haproxy.ts";
import { createLeaving } from "./leaving.ts";
import { plan, type Running, type Wanted } from "./plan.ts";
import { reloadWaitMs } from "./reload-pace.ts";

/** `waiting`: ask again after that time, in ms. */
type Outcome = { readonly kind: "done" } | { readonly kind: "waiting"; readonly waitMs: number };

export interface Convergence {
  /**
   * Makes HAProxy run `wanted`, as far as that is possible now.
   * @throws Fault `haproxy_unreachable` when it went away, `haproxy_failed` when it does not take a change
   */
  run(wanted: Wanted): Promise<Outcome>;
  /** Something may be other than it was read: of one backend, or anywhere. */
  distrust(backend?: string): void;
  /** HAProxy was started anew. */
  restarted(): void;
  /** Whether a server only waits to be deleted. */
  isLeaving(backend: string, server: string): boolean;
  /** When `sweep` has something to do, in ms since the epoch. */
  readonly sweepAt: number | undefined;
  /** Deletes the servers that left long enough ago. */
  sweep(): Promise<void>;
}

export type ConvergenceOptions = {
  readonly haproxy: Haproxy;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly onReload: (reasons: readonly string[]) => void;
};

/** Commands settle in one round, after a reload in two; health that flips meanwhile may need another. */
const ROUNDS = 5;
const OLD_WORKERS_POLL_MS = 100;

export function createConvergence({ haproxy, clock, logger, onReload }: ConvergenceOptions): Convergence {
  const leaving = createLeaving();
  let distrustAll = true;
  const distrusted = new Set<string>();
  /** Why the files on disk are older than what runs. */
  let unwritten: string | undefined;

  const reload = async (wanted: Wanted, reasons: readonly string[], before: Running): Promise<void> => {
    const start = clock.now();
    const down = foundDown(before, wanted);
    await haproxy.reload(wanted, new Set(down.keys()));
    leaving.clear();
    logger.info({ reasons, tookMs: clock.now() - start }, `HAProxy reloaded: ${reasons.slice(0, 3).join("; ")}`);
    onReload(reasons);
    await haproxy.execute(
      [...down].map(([key, backend]): Command => ({ text: `set server ${key} health down`, backend, takes: true })),
    );
    await keepOnDisk(wanted);
  };

  /** A full disk must not keep a drain from the HAProxy that runs: only its restart would not know of it. */
  const keepOnDisk = async (wanted: Wanted): Promise<void> => {
    try {
      await haproxy.write(wanted);
      if (unwritten !== undefined) logger.info("HAProxy's files are on disk again");
      unwritten = undefined;
    } catch (error) {
      const message = describeError(error);
      if (unwritten !== message) logger.error(`HAProxy's files cannot be written, it is only told: ${message}`);
      unwritten = message;
    }
  };

  return {
    async run(wanted) {
      /** Backends that were read anew, or undefined: all. */
      let seen: ReadonlySet<string> | undefined = distrustAll ? undefined : new Set(distrusted);
      // somebody else may have reloaded it: another worker then
      if (distrustAll) await haproxy.refreshProcesses();
      let running = await haproxy.read(seen);
      distrustAll = false;
      distrusted.clear();
      // before any change, so that a reload or a restart, whenever it comes, carries it
      await keepOnDisk(wanted);
      let reloaded = false;
      for (let round = 1; ; round += 1) {
        const next = plan(running, wanted);
        if (next.kind === "none") break;
        // right after a reload commands only repeat what the worker before it was told already
        if (!reloaded && next.commands.some(({ takes }) => takes)) await haproxy.noteTaken();
        const failures = await haproxy.execute(next.commands);
        if (failures.length > 0) logger.warn({ failures }, "HAProxy refused changes at run time");
        const touched = new Set(next.commands.map(({ backend }) => backend));
        if (failures.length > 0) {
          await haproxy.refreshProcesses();
          running = await haproxy.read();
          seen = undefined;
        } else {
          running = await haproxy.read(touched);
          seen = seen?.union(touched);
        }
        if (round > ROUNDS) {
          throw new Fault({
            code: "haproxy_failed",
            message: `HAProxy does not take a change: ${failures[0] ?? next.commands[0]?.text ?? "reload"}`,
          });
        }
        const reasons =
          next.kind === "reload" ? next.reasons : round === ROUNDS ? ["a change at run time did not take"] : undefined;
        if (reasons === undefined) continue;
        await haproxy.refreshProcesses();
        const waitMs = reloadWaitMs(haproxy.reloadedAt, haproxy.processes?.old.length ?? 0, clock.now());
        if (waitMs > 0) return { kind: "waiting", waitMs };
        // with what its own checks have found up to now
        await reload(wanted, reasons, await haproxy.read());
        reloaded = true;
        running = await haproxy.read();
        seen = undefined;
      }
      leaving.note(running, wanted.layout, seen, clock.now());
      return (await haproxy.oldStillAct()) ? { kind: "waiting", waitMs: OLD_WORKERS_POLL_MS } : { kind: "done" };
    },
    distrust(backend) {
      if (backend === undefined) distrustAll = true;
      else distrusted.add(backend);
    },
    restarted() {
      leaving.clear();
      distrustAll = true;
    },
    isLeaving: (backend, server) => leaving.has(backend, server),
    get sweepAt() {
      return leaving.nextAt();
    },
    async sweep() {
      const due = leaving.takeDue(clock.now()).map(({ backend, server }) => ({ backend, key: `${backend}/${server}` }));
      for (const { backend } of due) distrusted.add(backend);
      const failures = await haproxy.execute(
        due.map(({ backend, key }): Command => ({ text: `del server ${key}`, backend, takes: false })),
      );
      // one that still has a connection is refused, and asked again later
      const deleted = due.filter(({ key }) => !failures.some((failure) => failure.startsWith(`del server ${key}:`)));
      await haproxy.execute(
        deleted.map(({ backend, key }): Command => ({
          text: `del acl ${FILES.unpinnable} ${key}`,
          backend,
          takes: false,
        })),
      );
    },
  };
}

/**
 * `BACKEND/SERVER` → backend of what HAProxy's own checks found to be down. A new worker knows nothing of that, and would
 * count a dead instance as up until it has checked it again.
 */
function foundDown(running: Running, { layout }: Wanted): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const { name: backend, servers } of layout.backends.values()) {
    for (const { name, health } of servers) {
      const server = running.servers.get(backend)?.get(name);
      if (server?.checked === true && !server.up && !server.maintenance && health !== "down") {
        found.set(`${backend}/${name}`, backend);
      }
    }
  }
  return found;
}
