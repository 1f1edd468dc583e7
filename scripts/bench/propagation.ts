// P2: from Atlas's answer to a write until HAProxy serves it, on one host, with the compiled binary. One line of JSON.
// `bun scripts/bench/propagation.ts [CHANGES]`
//
// A change is a new instance; it is served when a request that is pinned to it (Smartstack-Instance) reaches it. The baseline is
// the same request to an instance that HAProxy has long had: what looking costs.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Connection } from "../../src/e2e/haproxy-kit.ts";
import { BINARY, eventually, freePort, spawn, type Spawned } from "../../src/e2e/process.ts";

const changes = Number(process.argv[2] ?? "300");
const directory = await mkdtemp(join(tmpdir(), "smartstack-bench-"));
const [atlasPort, bind, admin] = [await freePort(), await freePort(), await freePort()];
const atlas = `http://127.0.0.1:${atlasPort}`;
const service = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("ok") });

const residentMb = async (pid: number): Promise<number> => {
  const status = await Bun.file(`/proc/${pid}/status`).text();
  return Math.round(Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? "0") / 1_024);
};
const ready = (url: string): Promise<void> =>
  eventually(`${url} is ready`, async () => {
    if (!(await fetch(`${url}/readyz`)).ok) throw new Error("not yet");
  });
const put = async (name: string): Promise<void> => {
  const response = await fetch(`${atlas}/v1/services/identity/instances/${name}`, {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ port: service.port, address: "127.0.0.1" }),
  });
  await response.text();
  if (!response.ok) throw new Error(`Atlas answered ${response.status}`);
};
const connection = new Connection(bind);
/** Asks until that instance answers; in ms. */
const untilServed = async (name: string): Promise<number> => {
  const start = performance.now();
  for (;;) {
    const { status } = await connection.send({ "runscope-service": "identity", "smartstack-instance": name });
    if (status === 200) return performance.now() - start;
    if (performance.now() - start > 10_000) throw new Error(`${name} is not served within 10 s`);
  }
};
const at = (sorted: readonly number[], share: number): number =>
  Number((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(2));

const started: Spawned[] = [];
try {
  const run = (command: readonly string[]): Spawned => {
    const child = spawn([BINARY, ...command], { cwd: directory });
    started.push(child);
    return child;
  };
  run(["atlas", "--listen", `127.0.0.1:${atlasPort}`, "--data-dir", join(directory, "atlas")]);
  await ready(atlas);
  const bound = ["--bind", `127.0.0.1:${bind}`, "--admin", `127.0.0.1:${admin}`];
  const place = ["--atlas", atlas, "--host", "bench", "--state-dir", join(directory, "state"), "--stop-haproxy"];
  const sidecar = run(["sidecar", ...place, ...bound]);
  await ready(`http://127.0.0.1:${admin}`);
  await put("first");
  await untilServed("first");

  const times: number[] = [];
  for (let change = 0; change < changes; change += 1) {
    await put(`instance${change}`);
    times.push(await untilServed(`instance${change}`));
    // beyond the time in which Atlas lets changes share a delta
    await Bun.sleep(30);
  }
  const looks: number[] = [];
  for (let look = 0; look < changes; look += 1) looks.push(await untilServed("first"));
  times.sort((a, b) => a - b);
  looks.sort((a, b) => a - b);
  console.log(
    JSON.stringify({
      bench: "P2",
      store: "embedded",
      changes,
      p50Ms: at(times, 0.5),
      p99Ms: at(times, 0.99),
      maxMs: at(times, 1),
      lookP50Ms: at(looks, 0.5),
      sidecarMb: await residentMb(sidecar.pid),
    }),
  );
} finally {
  connection.close();
  for (const child of started.reverse()) await child.stop();
  await service.stop(true);
  await rm(directory, { recursive: true, force: true });
}
