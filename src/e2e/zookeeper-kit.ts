// What the suites of the ZooKeeper store share: servers of their own, and stores in a fresh chroot of them.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Clock } from "../core/lib/clock.ts";
import { silentLogger } from "../core/lib/logger.ts";
import { createZooKeeperLive, type ZooKeeperLive } from "../core/registry/zookeeper-live.ts";
import { type Op, ZooKeeperClient, type Zxid } from "../core/registry/zookeeper-client.ts";
import { systemClock } from "../core/lib/clock.ts";
import { type Ensemble, startZooKeeperEnsemble } from "./parts.ts";
import { freePort, runToEnd, spawn, type Spawned } from "./process.ts";

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

export type StoreOptions = { readonly realm?: string; readonly clock?: Clock; readonly sessionTimeoutMs?: number };

export function storeOn(servers: string, options: StoreOptions = {}): ZooKeeperLive {
  return createZooKeeperLive({ servers, realm: "local", logger: silentLogger, sessionTimeoutMs: 2_000, ...options });
}

/** ZooKeeper's own command line: one command, as a person types it. */
export async function zkCli(server: string, ...command: readonly string[]): Promise<string> {
  const { stdout, stderr } = await runToEnd(
    [
      "java",
      "-Xmx64m",
      "-XX:TieredStopAtLevel=1",
      "-cp",
      "/usr/share/java/zookeeper.jar",
      "org.apache.zookeeper.ZooKeeperMain",
      "-server",
      server,
      ...command,
    ],
    {},
  );
  return `${stdout}\n${stderr}`;
}
