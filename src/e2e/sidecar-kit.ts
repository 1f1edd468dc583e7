// What the end-to-end tests of the sidecar share: Atlas, sidecars and their HAProxy as an operator starts them.
import { expect } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createAtlasClient } from "../core/api/atlas-client.ts";
import { createSidecarClient, type SidecarClient } from "../core/api/sidecar-client.ts";
import { errorCode } from "../core/lib/errors.ts";
import { type Instance, instanceSchema } from "../core/model/instance.ts";
import { type Why, whySchema } from "../core/model/local.ts";
import { z } from "zod";
import { BINARY, eventually, type Spawned, type World } from "./harness.ts";
import { type Connection, send } from "./haproxy-kit.ts";

export type Atlas = {
  readonly url: string;
  readonly port: number;
  readonly dataDir: string;
  readonly process: Spawned;
  /** One write or question; throws when Atlas refuses. */
  ask(path: string, method?: "GET" | "PUT" | "PATCH" | "DELETE", body?: unknown): Promise<Record<string, unknown>>;
  instances(service: string): Promise<readonly Instance[]>;
};

/** Resolves when it is ready. */
export async function startAtlas(world: World, again?: Pick<Atlas, "port" | "dataDir">): Promise<Atlas> {
  const port = again?.port ?? (await world.port());
  const dataDir = again?.dataDir ?? join(world.directory, `atlas-${port}`);
  const process = world.spawn([BINARY, "atlas", "--listen", `127.0.0.1:${port}`, "--data-dir", dataDir], {
    name: `atlas :${port}`,
  });
  const url = `http://127.0.0.1:${port}`;
  await eventually("Atlas is ready", () => ready(url));
  const client = createAtlasClient({ urls: [url] });
  return {
    url,
    port,
    dataDir,
    process,
    ask: (path, method = "GET", body) =>
      client.request(path, { method, body, schema: z.record(z.string(), z.unknown()), timeoutMs: 15_000 }),
    async instances(service) {
      const schema = z.object({ instances: z.array(instanceSchema) });
      return (await client.request(`/v1/services/${service}`, { schema })).instances;
    },
  };
}

export type Sidecar = {
  readonly bind: number;
  readonly admin: string;
  readonly stateDir: string;
  readonly process: Spawned;
  /** Over its socket. */
  readonly client: SidecarClient;
  why(service: string): Promise<Why>;
  /** The process ids of its HAProxy: master first, then the workers. */
  haproxy(): readonly number[];
};

export type SidecarOptions = {
  readonly host?: string;
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** The state directory and ports of an earlier one. */
  readonly again?: Sidecar;
  /** Resolve before it is ready. */
  readonly unready?: boolean;
};

/** Resolves when it is ready. Its HAProxy ends with the scenario, whatever becomes of it. */
export async function startSidecar(
  world: World,
  atlas: Pick<Atlas, "url">,
  options: SidecarOptions = {},
): Promise<Sidecar> {
  const { host = "host001", flags = [], env = {}, again } = options;
  const bind = again?.bind ?? (await world.port());
  const admin = again?.admin ?? `http://127.0.0.1:${await world.port()}`;
  const stateDir = again?.stateDir ?? join(world.directory, host);
  const process = world.spawn(
    [BINARY, ...sidecarCommand({ atlas: atlas.url, host, bind, admin, stateDir }), ...flags],
    {
      name: `sidecar ${host}`,
      env,
    },
  );
  const sidecar: Sidecar = {
    bind,
    admin,
    stateDir,
    process,
    client: createSidecarClient({ socket: join(stateDir, "sidecar.sock") }),
    async why(service) {
      const response = await fetch(`${admin}/v1/why/${service}`);
      return whySchema.parse(await response.json());
    },
    haproxy: () => processesOf(join(stateDir, "haproxy/")),
  };
  world.defer(async () => {
    // the sidecar first, or it would start what is ended here again
    await process.stop();
    for (const pid of sidecar.haproxy()) terminate(pid);
    await eventually("HAProxy is gone", () => expect(sidecar.haproxy()).toEqual([]));
  });
  if (options.unready !== true) await eventually(`the sidecar of ${host} is ready`, () => ready(admin));
  return sidecar;
}

/** A worker may be gone before its turn, since its master was told first. */
function terminate(pid: number): void {
  try {
    process.kill(pid, "SIGTERM");
  } catch (error) {
    if (errorCode(error) !== "ESRCH") throw error;
  }
}

export function sidecarCommand(place: {
  readonly atlas: string;
  readonly host: string;
  readonly bind: number;
  readonly admin: string;
  readonly stateDir: string;
}): readonly string[] {
  const flags = {
    atlas: place.atlas,
    host: place.host,
    bind: `127.0.0.1:${place.bind}`,
    admin: new URL(place.admin).host,
    "state-dir": place.stateDir,
  };
  return ["sidecar", ...Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value])];
}

export async function ready(url: string): Promise<void> {
  const response = await fetch(`${url}/readyz`);
  if (!response.ok) throw new Error(`status ${response.status}: ${await response.text()}`);
}

/** Processes whose command line names something below that path, oldest first. */
function processesOf(path: string): readonly number[] {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return pids
    .filter((pid) => commandLine(pid).includes(path))
    .map(Number)
    .sort((a, b) => a - b);
}

function commandLine(pid: string): string {
  try {
    const text = readFileSync(`/proc/${pid}/cmdline`, "utf8");
    return text.includes("haproxy") ? text : "";
  } catch (error) {
    // it ended between the two looks
    if (error instanceof Error) return "";
    throw error;
  }
}

const identity = { "runscope-service": "identity" };

/** Which instance answers a request for identity, on a connection of its own. @throws when none does */
export async function answering(bind: number): Promise<string> {
  return nameIn(await send(bind, identity));
}

/** The same on a kept-alive connection. */
export async function answeringOn(connection: Connection): Promise<string> {
  return nameIn(await connection.send(identity));
}

function nameIn({ status, body }: { readonly status: number; readonly body: string }): string {
  if (status !== 200) throw new Error(`status ${status}: ${body}`);
  return (JSON.parse(body) as { name: string }).name;
}
