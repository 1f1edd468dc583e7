// The demo's steady traffic: one stream through the smart client, one through a foreign client that knows nothing of us.
import { Agent, get } from "node:http";
import { createSmartClient, type Retrying } from "../src/core/client/index.ts";

/**
 * What one stream did. `sends` counts every time a request went out, repeats included; `closed` those whose connection was
 * closed instead of an answer. That is HAProxy's way, and is in no log: when an instance dies with a request on a connection
 * that was used before, HAProxy closes the client's, which by HTTP may then send an idempotent request again.
 */
export type Tally = {
  readonly name: string;
  requests: number;
  sends: number;
  closed: number;
  failed: number;
  readonly failures: string[];
};

export type Traffic = {
  readonly tallies: readonly Tally[];
  /** Everything sent so far, by all streams. */
  total(): { requests: number; failed: number };
  /** Resolves when the last request has its answer. */
  stop(): Promise<void>;
};

/** Sends one GET as often as its client likes to, and counts. Throws when it failed for good. */
type Send = (target: string, id: string, tally: Tally) => Promise<void>;

const PAUSE_MS = 5;

/**
 * Starts both streams against a router; each repeats GET service://identity/teams and GET service://dashboard/ with a few in flight.
 * Every request carries an X-Request-Id of the form `demo-SERVICE-…`, so that HAProxy's log can be held against the tally.
 */
export function startTraffic(router: string): Traffic {
  const smart: Tally = { name: "smart client", requests: 0, sends: 0, closed: 0, failed: 0, failures: [] };
  const foreign: Tally = { name: "foreign client", requests: 0, sends: 0, closed: 0, failed: 0, failures: [] };
  const stopping = new AbortController();
  const client = createSmartClient({ router });
  const agent = new Agent({ keepAlive: true });

  const targets = ["identity/teams", "dashboard/"] as const;
  const loop = async (tally: Tally, lane: number, send: Send): Promise<void> => {
    for (let turn = lane; !stopping.signal.aborted; turn += 1) {
      const target = targets[turn % targets.length] ?? targets[0];
      const id = `demo-${target.split("/")[0]}-${tally.name.replace(" ", "-")}-${lane}-${turn}`;
      tally.requests += 1;
      try {
        await send(target, id, tally);
      } catch (error) {
        tally.failed += 1;
        tally.failures.push(error instanceof Error ? error.message : String(error));
      }
      await Bun.sleep(PAUSE_MS);
    }
  };

  const throughSmartClient: Send = async (target, id, tally) => {
    const hooks = {
      request: () => {
        tally.sends += 1;
      },
      retry: ({ failed }: Retrying) => {
        if (failed.status === undefined) tally.closed += 1;
      },
    };
    await client.get(`service://${target}`, { headers: { "x-request-id": id }, hooks }).text();
  };
  const throughForeignClient: Send = (target, id, tally) => foreignGet(router, agent, target, id, tally);

  const loops = [0, 1].flatMap((lane) => [
    loop(smart, lane, throughSmartClient),
    loop(foreign, lane, throughForeignClient),
  ]);
  return {
    tallies: [smart, foreign],
    total: () => ({ requests: smart.requests + foreign.requests, failed: smart.failed + foreign.failed }),
    async stop() {
      stopping.abort();
      await Promise.all(loops);
      agent.destroy();
    },
  };
}

/** A GET as any HTTP library does it: repeated once on 502 or a closed connection, and no more. */
async function foreignGet(router: string, agent: Agent, target: string, id: string, tally: Tally): Promise<void> {
  const [service = "", path = ""] = target.split("/");
  for (let repeated = false; ; repeated = true) {
    tally.sends += 1;
    const outcome = await once(`${router}/${path}`, agent, { "runscope-service": service, "x-request-id": id });
    if (outcome === 200) return;
    if (outcome === "closed") tally.closed += 1;
    if (repeated || (outcome !== 502 && outcome !== "closed")) throw new Error(`GET ${target} answered ${outcome}`);
  }
}

function once(url: string, agent: Agent, headers: Record<string, string>): Promise<number | "closed"> {
  return new Promise((resolve) => {
    const request = get(url, { agent, headers, timeout: 10_000 }, (response) => {
      response.resume();
      response.on("end", () => resolve(response.statusCode ?? 0));
      response.on("error", () => resolve("closed"));
    });
    request.on("timeout", () => request.destroy(new Error("timed out")));
    request.on("error", () => resolve("closed"));
  });
}
