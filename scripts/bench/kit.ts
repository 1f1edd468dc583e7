// What the benchmarks of Atlas share: a place to start things in, the stores, Atlas itself (the compiled binary), a light client,
// and how figures are read.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../src/core/lib/clock.ts";
import { ZooKeeperClient } from "../../src/core/registry/zookeeper-client.ts";
import { startDynamoDb, startZooKeeper, startZooKeeperEnsemble } from "../../src/e2e/parts.ts";
import { BINARY, flags, freePort, spawn, type Spawned, type SpawnOptions } from "../../src/e2e/process.ts";

/** Where Atlas keeps the registry: one SQLite file, or DynamoDB Local and one ZooKeeper, or three of them. */
export const STORES = ["embedded", "standalone", "ensemble"] as const;
export type StoreName = (typeof STORES)[number];

export function parseStores(list: string): readonly StoreName[] {
  return list.split(",").map((name) => {
    const store = STORES.find((known) => known === name);
    if (store === undefined) throw new Error(`there is no store ${name}, only ${STORES.join(", ")}`);
    return store;
  });
}

/** An empty directory and the processes started in it; all of it is gone after `end`. */
export class Place {
  readonly directory: string;
  readonly #spawned: Spawned[] = [];

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async open(): Promise<Place> {
    return new Place(await mkdtemp(join(tmpdir(), "smartstack-bench-")));
  }

  port(): Promise<number> {
    return freePort();
  }

  spawn(command: readonly string[], options: SpawnOptions = {}): Spawned {
    const child = spawn(command, { cwd: this.directory, ...options });
    this.#spawned.push(child);
    return child;
  }

  async end(): Promise<void> {
    // last started first: a sidecar ends before the Atlas it reports to
    for (const child of this.#spawned.toReversed()) await child.stop();
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** What stands behind an Atlas: its options, and where ZooKeeper and DynamoDB are when there are any. */
export type Backing = {
  readonly options: readonly string[];
  readonly zookeeper?: string;
  readonly endpoint?: string;
};

// what DynamoDB Local takes from anybody
Object.assign(process.env, {
  AWS_ACCESS_KEY_ID: "local",
  AWS_SECRET_ACCESS_KEY: "local",
  AWS_EC2_METADATA_DISABLED: "true",
});

/** Starts the servers of a store; of the embedded one there are none. */
export async function startStore(place: Place, store: StoreName): Promise<Backing> {
  if (store === "embedded") return { options: [] };
  const [zookeeper, { endpoint }] = await Promise.all([
    store === "standalone"
      ? startZooKeeper(place).then(({ address }) => address)
      : startZooKeeperEnsemble(place, 3).then(({ servers }) => servers),
    startDynamoDb(place),
  ]);
  const options = flags({ store: "cluster", zookeeper, "dynamodb-endpoint": endpoint, "dynamodb-region": "us-east-1" });
  return { options: [...options, "--dynamodb-create-table"], zookeeper, endpoint };
}

export type Atlas = {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** From the start of the process to the first 200 of /readyz, asked every 5 ms. */
  readonly readyMs: number;
  stop(): Promise<unknown>;
};

/** Starts Atlas; resolves when it is ready. @param name of its data directory: the same one finds the same embedded registry */
export async function startAtlas(place: Place, { options }: Backing, name = "atlas"): Promise<Atlas> {
  const port = await place.port();
  const url = `http://127.0.0.1:${port}`;
  const start = performance.now();
  const listening = ["--listen", `127.0.0.1:${port}`, "--data-dir", join(place.directory, name)];
  const child = place.spawn([BINARY, "atlas", ...listening, ...options]);
  const over = child.exited.then((code) => {
    throw new Error(`Atlas ended with ${code}: ${child.output()}`);
  });
  over.catch(() => undefined);
  await Promise.race([over, ready(url)]);
  return { url, port, pid: child.pid, readyMs: Math.round(performance.now() - start), stop: () => child.stop() };
}

/** Resolves when a program of ours says that it is ready. */
export async function ready(url: string): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (performance.now() < deadline) {
    const status = await fetch(`${url}/readyz`, { keepalive: false }).then(
      async (response) => (await response.text(), response.status),
      () => 0,
    );
    if (status === 200) return;
    await Bun.sleep(5);
  }
  throw new Error(`${url} is not ready`);
}

/** A kept connection that asks one thing at a time and looks at no more than it must: it costs less than whoever answers. */
export class Asker {
  readonly #host: string;
  #socket: Bun.Socket | undefined;
  #text = "";
  #answered: (status: number) => void = () => undefined;

  private constructor(host: string) {
    this.#host = host;
  }

  static async open(port: number): Promise<Asker> {
    const asker = new Asker(`127.0.0.1:${port}`);
    asker.#socket = await Bun.connect({
      hostname: "127.0.0.1",
      port,
      socket: {
        data: (_, data) => asker.#read(data.toString("latin1")),
        close: () => asker.#answered(0),
      },
    });
    return asker;
  }

  /** The status of the answer; 0 when the connection was closed. */
  ask(method: string, path: string, body?: unknown): Promise<number> {
    const text = body === undefined ? "" : JSON.stringify(body);
    const type = body === undefined ? "" : "content-type: application/json\r\n";
    return new Promise((resolve) => {
      this.#answered = resolve;
      this.#socket?.write(
        `${method} ${path} HTTP/1.1\r\nhost: ${this.#host}\r\n${type}content-length: ${text.length}\r\n\r\n${text}`,
      );
    });
  }

  close(): void {
    this.#socket?.end();
  }

  #read(text: string): void {
    this.#text += text;
    const end = this.#text.indexOf("\r\n\r\n");
    const length = Number(/content-length: (\d+)/i.exec(this.#text)?.[1] ?? "0");
    if (end < 0 || this.#text.length < end + 4 + length) return;
    const status = Number(this.#text.slice(9, 12));
    this.#text = "";
    this.#answered(status);
  }
}

/** Memory in MB: all that is resident, and of that what no other process could share. */
export async function memoryOf(pid: number): Promise<{ readonly mb: number; readonly ownMb: number }> {
  const status = await Bun.file(`/proc/${pid}/status`).text();
  const mb = (name: string): number => Math.round(Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1]) / 1_024);
  return { mb: mb("VmRSS"), ownMb: mb("RssAnon") };
}

/** Processor time of a process so far, in ms: user and system, in ticks of 10 ms. */
export async function processorMs(pid: number): Promise<number> {
  const fields = (await Bun.file(`/proc/${pid}/stat`).text()).replace(/^.*\) /, "").split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** A quantile of values, rounded to tenths. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return tenths(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0);
}

export function tenths(value: number): number {
  return Math.round(value * 10) / 10;
}

/** A session through the client that Atlas uses. */
export async function connectZooKeeper(hosts: string): Promise<ZooKeeperClient> {
  const { promise: connected, resolve, reject } = Promise.withResolvers<void>();
  const ignore = (): void => undefined;
  const client = new ZooKeeperClient({
    hosts,
    chroot: "",
    sessionTimeoutMs: 10_000,
    timers: systemClock,
    listener: { connected: resolve, ended: (why) => reject(new Error(why)), disconnected: ignore, event: ignore },
  });
  client.connect();
  await connected;
  return client;
}
