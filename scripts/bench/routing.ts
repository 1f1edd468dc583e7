// P1: what it costs HAProxy to find the backend: the rendered configuration against the deck's chain of ACLs, with 60 and with
// 1,000 services. One line of JSON. `bun scripts/bench/routing.ts [SECONDS]`
//
// Two baselines: `deck` is the chain in the bare configuration that the deck shows; `chain` is the rendered configuration with
// that chain in place of the map, so that both log, mark and pin alike. Each HAProxy has one thread; requests per second are
// those of one processor (requests by the worker's processor time), so that whatever else the machine does weighs little.
// The services that are asked for lie evenly between the first and the last of the chain.
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openAccessLog } from "../../src/core/haproxy/access-log.ts";
import { findBinary } from "../../src/core/haproxy/binary.ts";
import { endHaproxy, pathsIn, startHaproxy } from "../../src/core/haproxy/process.ts";
import { createProxy } from "../../src/core/haproxy/proxy.ts";
import { showProcesses } from "../../src/core/haproxy/runtime-api.ts";
import { systemClock } from "../../src/core/lib/clock.ts";
import { silentLogger } from "../../src/core/lib/logger.ts";
import { registrationFromPut } from "../../src/core/model/instance.ts";
import { defaultDefinition } from "../../src/core/model/service.ts";
import { freePort } from "../../src/e2e/process.ts";

const seconds = Number(process.argv[2] ?? "2");
const ROUNDS = 3;
const CONNECTIONS = 30;

const directory = await mkdtemp(join(tmpdir(), "smartstack-bench-"));
const binary = await findBinary();
const cleanups: (() => Promise<unknown>)[] = [];

/** A HAProxy of a hand-made configuration, its log read as the sidecar reads its own. */
async function start(name: string, config: string, port: number): Promise<Router> {
  const paths = pathsIn(join(directory, name));
  await mkdir(paths.directory, { recursive: true });
  await Bun.write(paths.config, config);
  await Bun.write(join(paths.directory, "unpinnable.lst"), "");
  const processes = await startHaproxy(binary.path, paths, `127.0.0.1:${port}`, systemClock);
  const log = openAccessLog({ path: paths.accessPipe, onRecord: () => undefined });
  cleanups.push(
    () => endHaproxy(processes.master, paths, systemClock),
    async () => log.close(),
  );
  return { port, worker: processes.worker ?? 0 };
}

type Router = { readonly port: number; readonly worker: number };
const plain =
  "global\n  maxconn 1000\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 60s\n  timeout server 60s\n";

/** The chain of the deck: one ACL and one `use_backend` a service. */
function chain(services: readonly string[]): string {
  const acls = services.map((name) => `    acl host_${name} hdr(runscope-service) -i ${name}\n`);
  const uses = services.map((name) => `    use_backend ${name}-backend if host_${name}\n`);
  return `${acls.join("")}${uses.join("")}`;
}

/** Seconds of processor time that a process has used. */
function processorSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** Requests of kept-alive connections for `seconds`; the connections' services lie evenly between first and last. */
async function drive(router: Router, services: readonly string[]): Promise<{ requests: number; processor: number }> {
  const before = processorSeconds(router.worker);
  const end = performance.now() + seconds * 1_000;
  let requests = 0;
  const client = (index: number): Promise<void> =>
    new Promise((resolve, reject) => {
      const service = services[Math.floor((index * services.length) / CONNECTIONS)];
      const request = `GET /teams HTTP/1.1\r\nhost: 127.0.0.1:4000\r\nuser-agent: smartstack/0.1\r\naccept: */*\r\naccept-encoding: gzip, br\r\nrunscope-service: ${service}\r\nsmartstack-timeout-ms: 9990\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nx-request-id: 3be2d73b-50e9-44d4-85d6-8e3551cf1adc\r\n\r\n`;
      let text = "";
      void Bun.connect({
        hostname: "127.0.0.1",
        port: router.port,
        socket: {
          open: (socket) => void socket.write(request),
          data(socket, data) {
            text += data.toString("latin1");
            if (!text.endsWith("\r\n\r\nhello")) return;
            if (!text.startsWith("HTTP/1.1 200")) reject(new Error(text));
            text = "";
            requests += 1;
            if (performance.now() < end) socket.write(request);
            else socket.end();
          },
          close: () => (text === "" ? resolve() : reject(new Error("cut off"))),
          error: (_, error) => reject(error),
        },
      }).catch(reject);
    });
  await Promise.all(Array.from({ length: CONNECTIONS }, (_, index) => client(index)));
  return { requests, processor: processorSeconds(router.worker) - before };
}

async function compare(count: number, instancePort: number): Promise<Record<string, number>> {
  const services = Array.from({ length: count }, (_, index) => `service-${String(index).padStart(4, "0")}`);
  const ports = [await freePort(), await freePort(), await freePort()] as const;

  const home = join(directory, `rendered-${count}`);
  const proxy = createProxy({ directory: home, bind: `127.0.0.1:${ports[0]}`, threads: 1, logger: silentLogger });
  cleanups.push(() => proxy.stop("end"));
  await proxy.start({
    services: Object.fromEntries(services.map((name) => [name, defaultDefinition])),
    instances: services.map((name) => ({
      ...registrationFromPut(name, "host001:5000", { port: instancePort, address: "127.0.0.1" }),
      enabled: true,
      healthy: true,
    })),
    agents: 1,
  });
  const { worker = 0 } = await showProcesses(pathsIn(home).master);

  const backends = services.map((name) => `backend ${name}-backend\n  server host001 127.0.0.1:${instancePort}\n`);
  const deck = `${plain}frontend http-in\n    bind *:${ports[1]}\n${chain(services)}${backends.join("")}`;
  const rendered = readFileSync(join(home, "haproxy.cfg"), "utf8");
  const chained = rendered
    .replace(`bind 127.0.0.1:${ports[0]}`, `bind 127.0.0.1:${ports[2]}`)
    .replaceAll(home, join(directory, `chain-${count}`))
    .replace(/ {4}http-request set-var\(txn\.backend\).*\n/, "")
    .replace(/ {4}use_backend %\[var\(txn\.backend\)\]\n/, chain(services));
  const routers = {
    rendered: { port: ports[0], worker },
    deck: await start(`deck-${count}`, deck, ports[1]),
    chain: await start(`chain-${count}`, chained, ports[2]),
  };

  const sums = { rendered: [0, 0], deck: [0, 0], chain: [0, 0] };
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const name of ["rendered", "deck", "chain"] as const) {
      const { requests, processor } = await drive(routers[name], services);
      sums[name] = [(sums[name][0] ?? 0) + requests, (sums[name][1] ?? 0) + processor];
    }
  }
  const rate = ([requests = 0, processor = 1]: readonly number[]): number => Math.round(requests / processor);
  const ratio = (a: number, b: number): number => Number((a / b).toFixed(2));
  const rates = { rendered: rate(sums.rendered), deck: rate(sums.deck), chain: rate(sums.chain) };
  return {
    ...rates,
    overDeck: ratio(rates.rendered, rates.deck),
    overChain: ratio(rates.rendered, rates.chain),
  };
}

try {
  const instancePort = await freePort();
  const answer = `${plain}frontend instance\n    bind 127.0.0.1:${instancePort}\n    http-request return status 200 content-type text/plain string hello\n`;
  await start("instance", answer, instancePort);
  const results = { services60: await compare(60, instancePort), services1000: await compare(1_000, instancePort) };
  console.log(
    JSON.stringify({ bench: "P1", unit: "requests per second of one processor", ...results, targets: [1.4, 3.5] }),
  );
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
  await rm(directory, { recursive: true, force: true });
}
