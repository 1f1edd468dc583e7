// P2: from Atlas's answer to a write until HAProxy serves it, on one host, with the compiled binary. One line of JSON a store.
// `bun scripts/bench/propagation.ts [--stores embedded,standalone] [--changes 200]`
//
// A change is a new instance; it is served when a request that is pinned to it (Smartstack-Instance) reaches it. The way is
// measured in parts, each with its median and p99: `write`, from the request until Atlas's answer; `event`, from that answer
// until a watcher in this process has the delta (below 0: it came first); `served`, from the answer until HAProxy serves it.
// `applied` is a change for itself: a write with wait=applied, whole. The baseline is the same request to an instance that HAProxy
// has long had: what looking costs.
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Connection } from "../../src/e2e/haproxy-kit.ts";
import { BINARY } from "../../src/e2e/process.ts";
import { Asker, memoryOf, parseStores, Place, quantile, ready, startAtlas, startStore, type StoreName } from "./kit.ts";

const { values } = parseArgs({
  options: {
    stores: { type: "string", default: "embedded,standalone" },
    changes: { type: "string", default: "200" },
  },
});
const changes = Number(values.changes);
/** Beyond the time in which Atlas lets changes share a delta. */
const PAUSE_MS = 30;
const TARGETS = { embedded: 30, standalone: 50, ensemble: 50 };

/** Tells when deltas arrive, of a stream of its own. */
async function watch(
  port: number,
): Promise<{ readonly arrived: () => number | undefined; readonly close: () => void }> {
  const { promise: begun, resolve } = Promise.withResolvers<void>();
  let last: number | undefined;
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      data(_, data) {
        if (data.includes("event: delta")) last = performance.now();
        if (data.includes("event: snapshot")) resolve();
      },
    },
  });
  socket.write("GET /v1/watch HTTP/1.1\r\nhost: x\r\n\r\n");
  await begun;
  return {
    arrived: () => {
      const at = last;
      last = undefined;
      return at;
    },
    close: () => socket.end(),
  };
}

async function measure(place: Place, store: StoreName): Promise<void> {
  const service = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("ok") });
  const atlas = await startAtlas(place, await startStore(place, store));
  const [bind, admin] = [await place.port(), await place.port()];
  const following = ["--atlas", atlas.url, "--host", "bench", "--state-dir", join(place.directory, "state")];
  const bound = ["--stop-haproxy", "--bind", `127.0.0.1:${bind}`, "--admin", `127.0.0.1:${admin}`];
  const sidecar = place.spawn([BINARY, "sidecar", ...following, ...bound]);
  await ready(`http://127.0.0.1:${admin}`);
  const asker = await Asker.open(atlas.port);
  const connection = new Connection(bind);
  const put = async (name: string, weight = 100, query = ""): Promise<void> => {
    const path = `/v1/services/identity/instances/${name}${query}`;
    const status = await asker.ask("PUT", path, { port: service.port, address: "127.0.0.1", weight });
    if (status !== 200 && status !== 201) throw new Error(`Atlas answered ${status}`);
  };
  /** Asks until that instance answers; in ms. */
  const untilServed = async (name: string): Promise<number> => {
    const start = performance.now();
    for (;;) {
      const { status } = await connection.send({ "runscope-service": "identity", "smartstack-instance": name });
      if (status === 200) return performance.now() - start;
      if (performance.now() - start > 10_000) throw new Error(`${name} is not served within 10 s`);
    }
  };
  await put("first");
  await untilServed("first");
  const watcher = await watch(atlas.port);

  const times = { write: [] as number[], event: [] as number[], served: [] as number[], applied: [] as number[] };
  for (let change = 0; change < changes; change += 1) {
    watcher.arrived();
    const sent = performance.now();
    await put(`instance${change}`);
    const answered = performance.now();
    times.write.push(answered - sent);
    times.served.push(await untilServed(`instance${change}`));
    // it comes at the same moment as to the sidecar: what is not seen yet when HAProxy serves is behind us in this very turn
    times.event.push((watcher.arrived() ?? performance.now()) - answered);
    await Bun.sleep(PAUSE_MS);
  }
  const looks: number[] = [];
  for (let look = 0; look < changes; look += 1) looks.push(await untilServed("first"));
  for (let change = 0; change < changes; change += 1) {
    const sent = performance.now();
    await put(`instance${change}`, 50, "?wait=applied");
    times.applied.push(performance.now() - sent);
    await Bun.sleep(PAUSE_MS);
  }
  const parts = Object.entries({ ...times, look: looks }).map(([name, list]) => [
    name,
    { p50Ms: quantile(list, 0.5), p99Ms: quantile(list, 0.99), maxMs: quantile(list, 1) },
  ]);
  const { mb: sidecarMb } = await memoryOf(sidecar.pid);
  const targetMs = TARGETS[store];
  console.log(JSON.stringify({ bench: "P2", store, changes, ...Object.fromEntries(parts), sidecarMb, targetMs }));
  watcher.close();
  asker.close();
  connection.close();
  await service.stop(true);
}

for (const store of parseStores(values.stores)) {
  const place = await Place.open();
  try {
    await measure(place, store);
  } finally {
    await place.end();
  }
}
