// P6: Atlas from its start to /readyz 200, and its memory, with many instances in the store. One line of JSON a store.
// `bun scripts/bench/boot.ts [--stores embedded,standalone] [--instances 10000] [--services 100] [--runs 3]`
//
// Medians of the runs, each a new process on the same registry. `mb` is all that is resident when it is ready, `ownMb` what of it
// no other process could share; `settledMb` three seconds later. `emptyMs` is the same start with an empty registry. The baseline
// reads the same and makes nothing of it: of ZooKeeper every znode, by the same client with 256 reads in flight; of SQLite every
// row, its JSON parsed.
import { Database } from "bun:sqlite";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { registrationFromPut } from "../../src/core/model/instance.ts";
import { defaultDefinition } from "../../src/core/model/service.ts";
import { createClusterStores } from "../../src/core/registry/cluster.ts";
import { createSqliteStores } from "../../src/core/registry/sqlite.ts";
import {
  type Backing,
  connectZooKeeper,
  memoryOf,
  parseStores,
  Place,
  processorMs,
  quantile,
  startAtlas,
  startStore,
} from "./kit.ts";

const { values } = parseArgs({
  options: {
    stores: { type: "string", default: "embedded,standalone" },
    instances: { type: "string", default: "10000" },
    services: { type: "string", default: "100" },
    runs: { type: "string", default: "3" },
  },
});
const count = Number(values.instances);
const services = Number(values.services);
const runs = Number(values.runs);
const IN_FLIGHT = 256;

const names = Array.from({ length: services }, (_, index) => `service-${String(index).padStart(4, "0")}`);

/** Puts the registry into the store, as an import does. */
async function fill(place: Place, { zookeeper, endpoint }: Backing): Promise<void> {
  const dataDir = join(place.directory, "atlas");
  const { live, meta } =
    zookeeper === undefined || endpoint === undefined
      ? createSqliteStores({ directory: dataDir, realm: "local" })
      : createClusterStores({
          realm: "local",
          zookeeper,
          dynamodb: { table: "smartstack-local", endpoint, region: "us-east-1", createTable: true },
          dataDir,
        });
  await live.open();
  await meta.open();
  const definitions = new Map<string, number>();
  for (const name of names) {
    definitions.set(name, await meta.addDefinition(name, { definition: defaultDefinition, published: undefined }));
  }
  const instances = Array.from({ length: count }, (_, index) => {
    const host = `host${String(Math.floor(index / services)).padStart(5, "0")}.example.com`;
    const put = { port: 5_000 + (index % services), address: "10.1.2.3", zone: "a", version: "1.2.3", agent: host };
    const registration = registrationFromPut(names[index % services] ?? "", host, { ...put, healthy: true });
    return { ...registration, enabled: true };
  });
  await live.restore({ definitions, settings: new Map(), instances, away: [] });
  await meta.close();
  await live.close();
}

async function readSqlite(place: Place): Promise<number> {
  const start = performance.now();
  const db = new Database(join(place.directory, "atlas", "atlas.db"));
  const rows = db.query<{ registration: string }, []>("SELECT * FROM instances").all();
  for (const { registration } of rows) JSON.parse(registration);
  db.close();
  if (rows.length !== count) throw new Error(`there are ${rows.length} instances, not ${count}`);
  return performance.now() - start;
}

async function readZooKeeper(servers: string): Promise<number> {
  const client = await connectZooKeeper(servers);
  const start = performance.now();
  const childrenOf = async (paths: readonly string[]): Promise<string[]> => {
    const below: string[] = [];
    await each(paths, async (path) => {
      for (const name of (await client.getChildren(path)).children) below.push(`${path}/${name}`);
    });
    return below;
  };
  const found = await childrenOf(await childrenOf(["/hosts"]));
  await each(found, (path) => client.getData(path));
  await each(await childrenOf(found), (path) => client.getData(path));
  const took = performance.now() - start;
  await client.close();
  if (found.length !== count) throw new Error(`there are ${found.length} instances, not ${count}`);
  return took;
}

/** As many at once as may be in flight. */
async function each(items: readonly string[], run: (item: string) => Promise<unknown>): Promise<void> {
  let next = 0;
  const work = async (): Promise<void> => {
    for (let item = items[next++]; item !== undefined; item = items[next++]) await run(item);
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, work));
}

const median = (list: readonly number[]): number => Math.round(quantile(list, 0.5));

for (const store of parseStores(values.stores)) {
  const place = await Place.open();
  try {
    const backing = await startStore(place, store);
    const empty = await startAtlas(place, backing);
    await empty.stop();
    await fill(place, backing);
    const figures: Record<string, number[]> = {};
    const note = (name: string, value: number): unknown => (figures[name] ??= []).push(value);
    for (let run = 0; run < runs; run += 1) {
      const atlas = await startAtlas(place, backing);
      const memory = await memoryOf(atlas.pid);
      note("readyMs", atlas.readyMs);
      note("cpuMs", await processorMs(atlas.pid));
      note("mb", memory.mb);
      note("ownMb", memory.ownMb);
      const { length } = (await (await fetch(`${atlas.url}/v1/services`)).json()) as { length: number };
      if (length !== services) throw new Error(`Atlas has ${length} services, not ${services}`);
      await Bun.sleep(3_000);
      note("settledMb", (await memoryOf(atlas.pid)).mb);
      await atlas.stop();
      const read = backing.zookeeper === undefined ? readSqlite(place) : readZooKeeper(backing.zookeeper);
      note("baselineMs", await read);
    }
    const medians = Object.fromEntries(Object.entries(figures).map(([name, list]) => [name, median(list)]));
    const targets = store === "embedded" ? {} : { readyMs: 4_000, mb: 150 };
    console.log(
      JSON.stringify({
        bench: "P6",
        store,
        instances: count,
        services,
        runs,
        ...medians,
        emptyMs: empty.readyMs,
        targets,
      }),
    );
  } finally {
    await place.end();
  }
}
