// P7 and P8, one line of JSON each. `bun scripts/bench/client.ts [ROUNDS]`
//
// P7: requests a second of the smart client, all policies on, against those of a bare fetch with the one header that the
// router needs, 50 in flight, through a real HAProxy to a service in a process of its own. Both take turns of a second or
// so, and the ratio is the median of the turns' ratios: what else the machine does falls on both.
// Promptness: how late calls with a timeout of 500 ms end when the answer stalls, and how long a call takes while 1,000 calls
// to another service hang, in ms; the behaviour itself is tested by src/core/client/wire.test.ts.
// P8: requests that arrive for each call when everything answers 503, breaker off and on; the baseline tries three times.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createSmartClient } from "../../src/core/client/index.ts";
import { createProxy } from "../../src/core/haproxy/proxy.ts";
import { silentLogger } from "../../src/core/lib/logger.ts";
import { registrationFromPut } from "../../src/core/model/instance.ts";
import { definitionSchema } from "../../src/core/model/service.ts";
import { freePort } from "../../src/e2e/harness.ts";

const rounds = Number(process.argv[2] ?? "15");
const IN_FLIGHT = 50;
const CALLS = 5_000;

const SERVICE = `
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => Response.json({ ok: true }) });
  console.log(server.port);
`;

async function keepBusy(calls: number, call: () => PromiseLike<unknown>): Promise<number> {
  let left = calls;
  const caller = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      await call();
    }
  };
  const began = performance.now();
  await Promise.all(Array.from({ length: IN_FLIGHT }, caller));
  return calls / ((performance.now() - began) / 1_000);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
}

const round = (value: number): number => Math.round(value * 1_000) / 1_000;

async function p7(directory: string): Promise<void> {
  const service = Bun.spawn([process.execPath, "-e", SERVICE], { stdout: "pipe" });
  const { value } = await service.stdout.getReader().read();
  const port = Number(new TextDecoder().decode(value));
  const bind = `127.0.0.1:${await freePort()}`;
  const proxy = createProxy({ directory, bind, logger: silentLogger });
  try {
    const instance = { ...registrationFromPut("identity", "bench:1", { port, address: "127.0.0.1" }), enabled: true };
    await proxy.start({ services: { identity: definitionSchema.parse({}) }, instances: [instance], agents: 1 });
    const router = `http://${bind}`;
    const client = createSmartClient({ router }, { environment: {} });
    const ways = {
      bare: async () => (await fetch(`${router}/teams`, { headers: { "Runscope-Service": "identity" } })).json(),
      json: () => client.get("service://identity/teams").json(),
      response: async () => (await client.get("service://identity/teams")).json(),
    };
    const rates: Record<keyof typeof ways, number[]> = { bare: [], json: [], response: [] };
    for (const way of Object.values(ways)) await keepBusy(CALLS, way);
    for (let turn = 0; turn < rounds; turn += 1) {
      for (const name of ["bare", "json", "response"] as const) rates[name].push(await keepBusy(CALLS, ways[name]));
    }
    const against = (name: keyof typeof ways): number =>
      round(median(rates[name].map((rate, turn) => rate / (rates.bare[turn] ?? rate))));
    const result = {
      bench: "client",
      target: "P7",
      ratio: against("json"),
      ratioOfResponse: against("response"),
      perSecond: Math.round(median(rates.json)),
      baselinePerSecond: Math.round(median(rates.bare)),
      inFlight: IN_FLIGHT,
      rounds,
      targetRatio: 0.95,
    };
    console.log(JSON.stringify(result));
  } finally {
    await proxy.stop("end");
    service.kill();
    await service.exited;
  }
}

async function p8(): Promise<void> {
  let arrived = 0;
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch() {
      arrived += 1;
      return new Response("no", { status: 503 });
    },
  });
  const calls = 2_000;
  const amplification = async (call: () => PromiseLike<unknown>): Promise<number> => {
    arrived = 0;
    await keepBusy(calls, call);
    return round(arrived / calls);
  };
  const router = `http://127.0.0.1:${server.port}`;
  const smart = (circuitBreaker: false | object): (() => PromiseLike<unknown>) => {
    const client = createSmartClient({ router, circuitBreaker }, { environment: {} });
    return () => client.get("service://identity/teams").safe();
  };
  const result = {
    bench: "client",
    target: "P8",
    sendsPerCall: await amplification(smart(false)),
    withBreaker: await amplification(smart({})),
    baseline: await amplification(async () => {
      for (let attempt = 0; attempt < 3; attempt += 1) await (await fetch(router)).text();
    }),
    calls,
    targetSendsPerCall: 1.12,
  };
  console.log(JSON.stringify(result));
  await server.stop(true);
}

async function promptness(): Promise<void> {
  const hung = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Promise<Response>(() => undefined) });
  const quick = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("ok") });
  const client = createSmartClient(
    { circuitBreaker: false, retry: false, attemptTimeout: 60_000 },
    { environment: { SMARTSTACK_SERVICE_HUNG: hung.url.href, SMARTSTACK_SERVICE_QUICK: quick.url.href } },
  );
  const timed = async (call: PromiseLike<unknown>): Promise<number> => {
    const began = performance.now();
    await call;
    return performance.now() - began;
  };
  const stalled = Array.from({ length: 100 }, () => timed(client.get("service://hung/", { timeout: 500 }).safe()));
  const late = (await Promise.all(stalled)).map((ms) => ms - 500);
  const enough = new AbortController();
  const { signal } = enough;
  const stuck = Array.from({ length: 1_000 }, () => client.get("service://hung/", { timeout: 60_000, signal }).safe());
  const beside: number[] = [];
  for (let call = 0; call < 200; call += 1) beside.push(await timed(client.get("service://quick/").text()));
  enough.abort();
  await Promise.all(stuck);
  const p99 = (values: readonly number[]): number =>
    round(values.toSorted((a, b) => a - b)[Math.ceil(values.length * 0.99) - 1] ?? 0);
  const result = {
    bench: "client",
    target: "promptness",
    lateP99Ms: p99(late),
    besideHungP99Ms: p99(beside),
    targetMs: "late <= 25, beside <= 25",
  };
  console.log(JSON.stringify(result));
  await Promise.all([hung.stop(true), quick.stop(true)]);
}

const directory = await mkdtemp(join(tmpdir(), "smartstack-bench-"));
try {
  await p7(join(directory, "haproxy"));
  await promptness();
  await p8();
} finally {
  await rm(directory, { recursive: true, force: true });
}
