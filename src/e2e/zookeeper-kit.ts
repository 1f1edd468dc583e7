// What the suites of the ZooKeeper store share: servers of their own, and stores in a fresh chroot of them.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Clock, systemClock } from "../core/lib/clock.ts";
import { silentLogger } from "../core/lib/logger.ts";
import { comparePositions, formatPosition } from "../core/model/position.ts";
import type { LiveState, LiveStore } from "../core/registry/live-store.ts";
import { createZooKeeperLive, type ZooKeeperLive } from "../core/registry/zookeeper-live.ts";
import { type Op, ZooKeeperClient, type Zxid } from "../core/registry/zookeeper-client.ts";
import { type Ensemble, startZooKeeperEnsemble } from "./parts.ts";
import { freePort, spawn, type Spawned } from "./process.ts";

/** An ensemble that a whole suite shares. */
export type SharedZooKeeper = Ensemble & { readonly stop: () => Promise<void> };

export async function shareZooKeeper(size: number): Promise<SharedZooKeeper> {
  const directory = await mkdtemp(join(tmpdir(), "smartstack-zookeeper-"));
  const spawned: Spawned[] = [];
  const ensemble = await startZooKeeperEnsemble(
    {
      directory,
      port: freePort,
      spawn(command, options = {}) {
        const child = spawn(command, { cwd: directory, ...options });
        spawned.push(child);
        return child;
      },
    },
    size,
  );
  return {
    ...ensemble,
    async stop() {
      for (const child of spawned) {
        // one that is paused does not hear a polite word
        child.signal("SIGKILL");
        await child.exited;
      }
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** A client of the test's own: the hand that edits, or the eye that looks. */
export type Hand = {
  readonly chroot: string;
  write(...ops: readonly Op[]): Promise<Zxid>;
  create(path: string, data?: string): Promise<Zxid>;
  set(path: string, data: string): Promise<Zxid>;
  remove(path: string): Promise<Zxid>;
  read(path: string): Promise<string | undefined>;
  children(path: string): Promise<readonly string[]>;
  close(): Promise<void>;
};

export async function openHand(hosts: string, chroot = ""): Promise<Hand> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const client = new ZooKeeperClient({
    hosts,
    chroot,
    sessionTimeoutMs: 10_000,
    timers: systemClock,
    listener: {
      connected: () => resolve(),
      disconnected: () => undefined,
      ended: () => undefined,
      event: () => undefined,
    },
  });
  client.connect();
  await promise;
  const write = (...ops: readonly Op[]): Promise<Zxid> => client.commit(ops);
  return {
    chroot,
    write,
    create: (path, data = "") => write({ kind: "create", path, data }),
    set: (path, data) => write({ kind: "set", path, data }),
    remove: (path) => write({ kind: "remove", path }),
    read: (path) =>
      client.getData(path).then(
        ({ data }) => data,
        () => undefined,
      ),
    children: async (path) => (await client.getChildren(path)).children.toSorted(),
    close: () => client.close(),
  };
}

let chroots = 0;

/** The name of a chroot that nobody had before; it exists. */
export async function freshChroot(hand: Hand): Promise<string> {
  chroots += 1;
  const chroot = `/test-${process.pid}-${chroots}`;
  await hand.create(chroot);
  return chroot;
}

export type StoreOptions = {
  readonly realm?: string;
  readonly clock?: Clock;
  readonly sessionTimeoutMs?: number;
  readonly replica?: string;
};

export function storeOn(servers: string, options: StoreOptions = {}): ZooKeeperLive {
  return createZooKeeperLive({ servers, realm: "local", logger: silentLogger, sessionTimeoutMs: 2_000, ...options });
}

/** ZooKeeper's own command line, given these lines as if a person typed them. */
export async function zkCli(server: string, ...lines: readonly string[]): Promise<string> {
  const java = "java -Xmx64m -XX:TieredStopAtLevel=1 -cp /usr/share/java/zookeeper.jar".split(" ");
  const child = Bun.spawn([...java, "org.apache.zookeeper.ZooKeeperMain", "-server", server], {
    stdin: new Blob([`${lines.join("\n")}\nquit\n`]),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return `${stdout}\n${stderr}`;
}

/** What a replica published, one line for each position. */
export type Record = {
  /** Position → what the state was there. */
  readonly states: ReadonlyMap<string, string>;
  /** What went wrong: a position that did not grow, a change that does not follow. */
  readonly faults: readonly string[];
  /** How often a new generation began. */
  readonly resets: () => number;
};

/** Follows a store from now on. */
export function record(live: LiveStore): Record {
  const states = new Map<string, string>();
  const faults: string[] = [];
  let resets = 0;
  let last: LiveState = live.state();
  states.set(formatPosition(last), digest(last));
  live.onChange((change) => {
    const { state } = change;
    if (change.kind !== "settings") {
      const at = `${formatPosition(last)} → ${formatPosition(state)}`;
      if (comparePositions(last, state) >= 0) faults.push(`${at} does not grow`);
      if (change.kind === "change") {
        if (change.since !== last.revision) faults.push(`${at} says it follows ${change.since}`);
        const ids = new Set(last.instances.keys());
        for (const { id } of change.instances.put) ids.add(id);
        for (const { id } of change.instances.delete) ids.delete(id);
        if (ids.size !== state.instances.size) faults.push(`${at} does not tell every instance that came or went`);
      } else resets += 1;
    }
    last = state;
    const known = states.get(formatPosition(state));
    const now = digest(state);
    if (known !== undefined && known !== now) faults.push(`two states at ${formatPosition(state)}`);
    states.set(formatPosition(state), now);
  });
  return { states, faults, resets: () => resets };
}

/** Everything of a state that belongs to its position, as text. */
export function digest({ definitions, instances, removed }: LiveState): string {
  const sorted = <T>(map: ReadonlyMap<string, T>) => [...map].sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify([sorted(definitions), sorted(instances), sorted(removed)]);
}
