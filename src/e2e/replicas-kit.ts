// Several Atlases on one ZooKeeper and one DynamoDB, and agents light enough to have many: a watch and its acks, no HAProxy.
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { watchAtlas, type WatchStatus } from "../core/api/watch-client.ts";
import { steadyClock } from "../core/lib/clock.ts";
import { silentLogger } from "../core/lib/logger.ts";
import { comparePositions, formatPosition, type Position } from "../core/model/position.ts";
import type { Snapshot } from "../core/model/snapshot.ts";
import { createAcks } from "../sidecar/acks.ts";
import { BINARY, eventually, flags, type Spawned, type World } from "./harness.ts";
import { startDynamoDb, startZooKeeper } from "./parts.ts";

/** What DynamoDB Local wants to see; it checks nothing. */
const CREDENTIALS = {
  AWS_ACCESS_KEY_ID: "local",
  AWS_SECRET_ACCESS_KEY: "local",
  AWS_EC2_METADATA_DISABLED: "true",
  AWS_REGION: "us-east-1",
};

export type Replica = { readonly url: string; readonly port: number; readonly process: Spawned };

export type Cluster = {
  /** Starts an Atlas; resolves when it is ready. @param port @default a free one */
  start(port?: number): Promise<Replica>;
};

/** Starts the stores, unless ZooKeeper is there already. */
export async function startCluster(world: World, zookeeper?: string): Promise<Cluster> {
  const [{ address }, { endpoint }] = await Promise.all([
    zookeeper === undefined ? startZooKeeper(world) : { address: zookeeper },
    startDynamoDb(world),
  ]);
  return {
    async start(port) {
      const listen = port ?? (await world.port());
      const dataDir = join(world.directory, `atlas-${listen}`);
      await mkdir(dataDir, { recursive: true });
      const options = flags({
        listen: `127.0.0.1:${listen}`,
        store: "cluster",
        zookeeper: address,
        "dynamodb-endpoint": endpoint,
        "data-dir": dataDir,
      });
      const process = world.spawn([BINARY, "atlas", ...options, "--dynamodb-create-table"], {
        name: `atlas :${listen}`,
        env: CREDENTIALS,
      });
      const url = `http://127.0.0.1:${listen}`;
      const died = process.exited.then((code) => {
        throw new Error(`Atlas ended with ${code}`);
      });
      const ready = eventually(
        "Atlas is ready",
        async () => {
          const response = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(2_000) });
          await response.text();
          if (!response.ok) throw new Error(`status ${response.status}`);
        },
        20_000,
      );
      await Promise.race([ready, died]);
      return { url, port: listen, process };
    },
  };
}

export type Json = Readonly<Record<string, unknown>> & Partial<Position>;
export type Answer = { readonly status: number; readonly body: Json };

/** One request, whatever it answers. */
export async function ask(url: string, method = "GET", body?: unknown, timeoutMs = 15_000): Promise<Answer> {
  const response = await fetch(url, {
    method,
    ...(body === undefined ? {} : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
    signal: AbortSignal.timeout(timeoutMs),
    keepalive: false,
  });
  return { status: response.status, body: (await response.json()) as Json };
}

export type LightAgent = {
  readonly host: string;
  /** The registry as it has followed it. */
  snapshot(): Snapshot | undefined;
  status(): WatchStatus;
  /** How often it was sent back; must stay empty. */
  readonly wentBack: readonly string[];
  /** Snapshots that it was sent. */
  readonly snapshots: number;
  stop(): Promise<void>;
};

/** Follows Atlas as a sidecar does, with the lease of its host when it has one, and acks what it was sent. */
export function followAtlas(
  world: World,
  urls: readonly string[],
  host: string,
  options: { readonly lease?: boolean; readonly boot?: string } = {},
): LightAgent {
  let snapshot: Snapshot | undefined;
  let status: WatchStatus = { kind: "connecting" };
  let snapshots = 0;
  const wentBack: string[] = [];
  const surroundings = { clock: steadyClock, logger: silentLogger };
  const acks = createAcks({
    host,
    ...surroundings,
    replica: () => (status.kind === "connected" ? status.client : undefined),
  });
  const agent = { host, boot: options.boot ?? crypto.randomUUID(), zone: "", version: "e2e" };
  const watch = watchAtlas(
    { urls, realm: "local", ...surroundings, ...(options.lease === false ? {} : { agent }) },
    {
      onState(next, delta) {
        if (snapshot !== undefined && comparePositions(next, snapshot) < 0)
          wentBack.push(`${formatPosition(snapshot)} → ${formatPosition(next)}`);
        snapshot = next;
        if (delta === undefined) snapshots += 1;
        const { generation, revision } = next;
        if (options.lease !== false)
          acks.applied({ generation, revision, rejected: [], reloaded: false, tookMs: 0 }, delta?.ack === true);
      },
      onStatus(next) {
        status = next;
        if (next.kind === "connected" && options.lease !== false) acks.connected();
      },
    },
  );
  const stop = async (): Promise<void> => {
    acks.stop();
    await watch.stop();
  };
  world.defer(stop);
  return {
    host,
    snapshot: () => snapshot,
    status: () => status,
    wentBack,
    get snapshots() {
      return snapshots;
    },
    stop,
  };
}

/** Resolves when these follow Atlas. */
export async function connected(agents: readonly LightAgent[], timeoutMs?: number): Promise<void> {
  await eventually(
    "all agents follow Atlas",
    () => {
      const lost = agents.filter((agent) => agent.status().kind !== "connected").map(({ host }) => host);
      if (lost.length > 0) throw new Error(`not ${lost.join(", ")}`);
    },
    timeoutMs,
  );
}
