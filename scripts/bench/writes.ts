// Writes of instances per second, and how long one takes, by store, through the compiled binary over HTTP. One line of JSON a
// store. `bun scripts/bench/writes.ts [--stores embedded,standalone,ensemble] [--seconds 3] [--writers 1,8,64]`
//
// Every writer changes an instance of its own, one write after the other; `mixed` is 64 writers who put, weigh, disable and
// remove instances, a write each. The baseline does the least that keeps such a write: of the embedded store, a transaction of
// SQLite with its fsync, as many rows in one as there are writers; of ZooKeeper, `setData` through the same client, as many in
// flight as there are writers. `processorMs` is Atlas's own, for one write. DynamoDB Local stands behind the cluster store for
// its audit trail.
import { Database } from "bun:sqlite";
import { join } from "node:path";
import { parseArgs } from "node:util";
import {
  connectZooKeeper,
  Asker,
  type Atlas,
  parseStores,
  Place,
  processorMs,
  quantile,
  startAtlas,
  startStore,
  tenths,
} from "./kit.ts";

const { values } = parseArgs({
  options: {
    stores: { type: "string", default: "embedded,standalone,ensemble" },
    seconds: { type: "string", default: "3" },
    writers: { type: "string", default: "1,8,64" },
  },
});
const seconds = Number(values.seconds);
const crowds = values.writers.split(",").map(Number);
const MIXED = 64;

type Figures = { readonly perSecond: number; readonly p50Ms: number; readonly p99Ms: number; processorMs?: number };

/** Lets `count` writers write one after the other for `seconds`. @param write what the nth writer does the nth time */
async function drive(count: number, write: (writer: number, turn: number) => Promise<unknown>): Promise<Figures> {
  const times: number[] = [];
  const start = performance.now();
  const end = start + seconds * 1_000;
  await Promise.all(
    Array.from({ length: count }, async (_, writer) => {
      for (let turn = 0; performance.now() < end; turn += 1) {
        const begun = performance.now();
        await write(writer, turn);
        times.push(performance.now() - begun);
      }
    }),
  );
  const took = performance.now() - start;
  return {
    perSecond: Math.round((times.length / took) * 1_000),
    p50Ms: quantile(times, 0.5),
    p99Ms: quantile(times, 0.99),
  };
}

async function throughAtlas({ port, pid }: Atlas, count: number, isMixed = false): Promise<Figures> {
  const askers = await Promise.all(Array.from({ length: count }, () => Asker.open(port)));
  const ask = async (writer: number, method: string, instance: string, body?: unknown): Promise<void> => {
    const path = `/v1/services/service-${writer % 8}/instances/${instance}`;
    const status = await askers[writer]?.ask(method, path, body);
    if (status !== 200 && status !== 201) throw new Error(`${method} ${path} was answered ${status}`);
  };
  const before = await processorMs(pid);
  const write = (writer: number, turn: number): Promise<void> => {
    const name = `${isMixed ? "mixed" : "host"}-${count}-${writer}`;
    const put = { port: 5_000, address: "10.0.0.1", weight: turn % 100 };
    if (!isMixed) return ask(writer, "PUT", name, put);
    if (turn % 4 === 0) return ask(writer, "PUT", name, put);
    if (turn % 4 === 1) return ask(writer, "PATCH", name, { weight: 100 + (turn % 100) });
    if (turn % 4 === 2) return ask(writer, "PATCH", name, { enabled: false });
    return ask(writer, "DELETE", name);
  };
  const figures = await drive(count, write);
  for (const asker of askers) asker.close();
  const processor = (await processorMs(pid)) - before;
  return { ...figures, processorMs: Math.round((processor / (figures.perSecond * seconds)) * 1_000) / 1_000 };
}

/** Transactions of SQLite, each with its fsync: `count` rows in one. */
function bareSqlite(place: Place, count: number): Promise<Figures> {
  const db = new Database(join(place.directory, `bare-${count}.db`), { create: true });
  db.run("PRAGMA journal_mode = WAL");
  db.run("PRAGMA synchronous = FULL");
  db.run("CREATE TABLE instances (id TEXT PRIMARY KEY, registration TEXT) WITHOUT ROWID");
  const insert = db.query("INSERT OR REPLACE INTO instances VALUES (?, ?)");
  let queue: (() => void)[] = [];
  const commit = (): void => {
    const waiting = queue;
    queue = [];
    db.run("BEGIN IMMEDIATE");
    for (const [row] of waiting.entries()) insert.run(`host-${row}`, JSON.stringify({ row, at: performance.now() }));
    db.run("COMMIT");
    for (const done of waiting) done();
  };
  const write = (): Promise<void> =>
    new Promise((resolve) => {
      if (queue.push(resolve) === 1) setImmediate(commit);
    });
  return drive(count, write).finally(() => db.close());
}

/** `setData` through the client that Atlas uses. */
async function bareZooKeeper(servers: string): Promise<ReadonlyMap<number, Figures>> {
  const client = await connectZooKeeper(servers);
  const results = new Map<number, Figures>();
  try {
    await client.commit([{ kind: "create", path: "/bench", data: "" }]);
    for (let node = 0; node < Math.max(...crowds); node += 1)
      await client.commit([{ kind: "create", path: `/bench/${node}`, data: "" }]);
    for (const count of crowds) {
      const write = (writer: number, turn: number): Promise<unknown> =>
        client.commit([{ kind: "set", path: `/bench/${writer}`, data: `{"weight":${turn},"zone":"","version":""}` }]);
      results.set(count, await drive(count, write));
    }
    return results;
  } finally {
    await client.close();
  }
}

for (const store of parseStores(values.stores)) {
  const place = await Place.open();
  try {
    const backing = await startStore(place, store);
    const atlas = await startAtlas(place, backing);
    // the services are there, and code is warm
    await throughAtlas(atlas, 8);
    const writers: Record<number, Figures> = {};
    const baseline: Record<number, Figures> = {};
    for (const count of crowds) writers[count] = await throughAtlas(atlas, count);
    const mixed = await throughAtlas(atlas, MIXED, true);
    await atlas.stop();
    if (backing.zookeeper === undefined) for (const count of crowds) baseline[count] = await bareSqlite(place, count);
    else for (const [count, figures] of await bareZooKeeper(backing.zookeeper)) baseline[count] = figures;
    const shares = crowds.map((count) =>
      tenths(((writers[count]?.perSecond ?? 0) / (baseline[count]?.perSecond ?? 1)) * 100),
    );
    console.log(
      JSON.stringify({ bench: "writes", store, seconds, writers, mixed, baseline, percentOfBaseline: shares }),
    );
  } finally {
    await place.end();
  }
}
