// P3: one Atlas (the compiled binary), 5,000 watchers on the same box, one change at a time. One line of JSON for each kind of
// watcher. `bun scripts/bench/fan-out.ts [--watchers 5000] [--changes 20] [--instances 0] [--kinds plain,agents,filtered]`
//
// `fromAck`: from the moment the writer has Atlas's answer until a watcher's process has read the delta, over all watchers of all
// changes; `fromSend` begins when the writer sends its request. Clocks are those of one machine. `mb` is all of Atlas that is
// resident with every watcher connected, after the changes; `ownMb` what of it no other process could share, so without the pages
// of the executable. The baseline is a bare Bun.serve that sends the same bytes to as many streams.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { BINARY, eventually, freePort, spawn, type Spawned } from "../../src/e2e/process.ts";
import { memoryOf } from "./kit.ts";
import type { FromReaders, ToReaders } from "./readers.ts";

const { values } = parseArgs({
  allowPositionals: true,
  options: {
    watchers: { type: "string", default: "5000" },
    changes: { type: "string", default: "20" },
    instances: { type: "string", default: "0" },
    kinds: { type: "string", default: "plain,agents,filtered" },
  },
});
const watchers = Number(values.watchers);
const changes = Number(values.changes);
/** One of each service at least: filters name services that are there. */
const instances = Math.max(60, Number(values.instances));
const PATIENCE_MS = 20_000;

/** What is measured of one server. */
type Figures = {
  readonly connectMs: number;
  readonly ackP50Ms: number;
  readonly fromAckP50Ms: number;
  readonly fromAckP99Ms: number;
  readonly fromSendP99Ms: number;
  readonly maxMs: number;
  readonly mb: number;
  readonly ownMb: number;
  readonly emptyMb: number;
};

if (process.argv[2] === "broadcaster") broadcast(Number(process.argv[3]));
else await main();

/** The baseline: streams, and a PUT that sends everybody what Atlas would send. */
function broadcast(port: number): void {
  const controllers = new Set<ReadableStreamDefaultController<Uint8Array>>();
  const encoder = new TextEncoder();
  const first = encoder.encode("id: 1.1\nevent: snapshot\ndata: {}\n\n");
  Bun.serve({
    port,
    hostname: "127.0.0.1",
    idleTimeout: 255,
    fetch(request) {
      if (request.method === "PUT") {
        const data = JSON.stringify({ generation: 1, revision: 2, since: 1, filler: "x".repeat(300) });
        const bytes = encoder.encode(`id: 1.2\nevent: delta\ndata: ${data}\n\n`);
        for (const controller of controllers) controller.enqueue(bytes);
        return new Response("{}");
      }
      if (!request.url.includes("/v1/watch")) return new Response("{}");
      let own: ReadableStreamDefaultController<Uint8Array>;
      const body = new ReadableStream<Uint8Array>({
        start(controller) {
          own = controller;
          controllers.add(controller);
          controller.enqueue(first);
        },
        cancel: () => void controllers.delete(own),
      });
      return new Response(body, { headers: { "content-type": "text/event-stream" } });
    },
  });
}

function at(sorted: readonly number[], share: number): number {
  return Number((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(1));
}

async function put(url: string, index: number): Promise<void> {
  const response = await fetch(`${url}/v1/services/service-${index % 60}/instances/instance-${index}`, {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ port: 5_000, address: "10.0.0.1" }),
  });
  await response.text();
  if (!response.ok) throw new Error(`the write was answered ${response.status}`);
}

/** Connects the readers, makes the changes, and reads memory while all are connected. */
async function measure(port: number, pid: number, kind: string): Promise<Figures> {
  const url = `http://127.0.0.1:${port}`;
  const { mb: emptyMb } = await memoryOf(pid);
  let heard: (message: FromReaders) => void = () => undefined;
  const next = (wanted: FromReaders["kind"]): Promise<FromReaders> =>
    new Promise((resolve, reject) => {
      heard = (message) => {
        if (message.kind === wanted) resolve(message);
        else if (message.kind === "lost") reject(new Error(message.what));
      };
      setTimeout(() => reject(new Error(`no "${wanted}" within ${PATIENCE_MS} ms`)), PATIENCE_MS).unref();
    });
  const readers = Bun.spawn(
    [process.execPath, join(import.meta.dir, "readers.ts"), String(port), String(watchers), kind],
    { ipc: (message: FromReaders) => heard(message), stdout: "inherit", stderr: "inherit" },
  );
  try {
    const connected = await next("connected");
    const [acks, fromAck, fromSend]: [number[], number[], number[]] = [[], [], []];
    for (let change = 0; change < changes; change += 1) {
      readers.send({ kind: "expect" } satisfies ToReaders);
      // beyond the time in which Atlas lets changes share a delta, and for the box to come to rest
      await Bun.sleep(300);
      const changed = next("changed");
      const sent = performance.timeOrigin + performance.now();
      await put(url, instances + 60 + change);
      const acked = performance.timeOrigin + performance.now();
      acks.push(acked - sent);
      const message = await changed;
      const times = message.kind === "changed" ? message.at : [];
      for (const time of times) {
        fromAck.push(time - acked);
        fromSend.push(time - sent);
      }
    }
    for (const list of [acks, fromAck, fromSend]) list.sort((a, b) => a - b);
    return {
      connectMs: connected.kind === "connected" ? Math.round(connected.tookMs) : 0,
      ackP50Ms: at(acks, 0.5),
      fromAckP50Ms: at(fromAck, 0.5),
      fromAckP99Ms: at(fromAck, 0.99),
      fromSendP99Ms: at(fromSend, 0.99),
      maxMs: at(fromSend, 1),
      ...(await memoryOf(pid)),
      emptyMb,
    };
  } finally {
    readers.kill("SIGKILL");
    await readers.exited;
  }
}

async function main(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "smartstack-bench-"));
  let running: Spawned | undefined;
  const run = async (command: readonly string[], port: number): Promise<Spawned> => {
    const child = (running = spawn(command, { cwd: directory }));
    await eventually("the server answers", async () => (await fetch(`http://127.0.0.1:${port}/readyz`)).text());
    return child;
  };
  try {
    const basePort = await freePort();
    const base = await run([process.execPath, import.meta.path, "broadcaster", String(basePort)], basePort);
    const baseline = await measure(basePort, base.pid, "plain");
    await base.stop();
    for (const kind of values.kinds.split(",")) {
      const port = await freePort();
      const url = `http://127.0.0.1:${port}`;
      const atlas = await run(
        [BINARY, "atlas", "--listen", `127.0.0.1:${port}`, "--data-dir", join(directory, kind)],
        port,
      );
      for (let index = 0; index < instances; index += 60)
        await Promise.all(Array.from({ length: 60 }, (_, more) => put(url, index + more)));
      const figures = await measure(port, atlas.pid, kind);
      console.log(
        JSON.stringify({
          bench: "P3",
          kind,
          watchers,
          changes,
          instances,
          ...figures,
          baseline,
          targets: { fromAckP99Ms: 250, mb: 100 },
        }),
      );
      await atlas.stop();
    }
  } finally {
    await running?.stop();
    await rm(directory, { recursive: true, force: true });
  }
}
