// Atlas as operators run it: the compiled binary, killed, restarted, started wrongly.
import { describe, expect } from "bun:test";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { readSse, type SseEvent } from "../core/lib/sse.ts";
import { BINARY, eventually, scenario, type Spawned, type World } from "./harness.ts";

type Atlas = { readonly url: string; readonly port: number; readonly process: Spawned };

/** Starts Atlas on the scenario's data directory; resolves when it is ready. */
async function startAtlas(world: World, port?: number): Promise<Atlas> {
  const listen = port ?? (await world.port());
  const process = world.spawn(
    [BINARY, "atlas", "--listen", `127.0.0.1:${listen}`, "--data-dir", join(world.directory, "data")],
    { name: `atlas :${listen}` },
  );
  const url = `http://127.0.0.1:${listen}`;
  await eventually("Atlas is ready", async () => {
    const response = await fetch(`${url}/readyz`);
    if (!response.ok) throw new Error(`status ${response.status}`);
  });
  return { url, port: listen, process };
}

type Json = { readonly generation: number; readonly revision: number; readonly [key: string]: unknown };

async function ask(url: string, method = "GET", body?: unknown): Promise<Json> {
  const response = await fetch(url, {
    method,
    ...(body === undefined ? {} : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
    signal: AbortSignal.timeout(10_000),
  });
  if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${await response.text()}`);
  return (await response.json()) as Json;
}

/** Opens a watch; its events grow in the background until the stream ends. */
async function watch(world: World, url: string, headers: Record<string, string> = {}) {
  const ending = new AbortController();
  world.defer(() => ending.abort());
  const response = await fetch(url, { headers, signal: ending.signal });
  if (response.body === null) throw new Error("no body");
  const events: (SseEvent & { json: Json })[] = [];
  const { body } = response;
  const ended = (async () => {
    try {
      for await (const event of readSse(body)) events.push({ ...event, json: JSON.parse(event.data) as Json });
    } catch (error) {
      return String(error);
    }
    return "end";
  })();
  const event = (kind: string) =>
    eventually(`an event ${kind}`, () => {
      const found = events.find((one) => one.event === kind);
      if (found === undefined) throw new Error(`only ${events.map((one) => one.event).join(", ")}`);
      return found;
    });
  return { events, event, ended };
}

describe("atlas", () => {
  scenario("says where it is ready, streams changes, and ends in order on SIGTERM", async (world) => {
    const atlas = await startAtlas(world);
    expect(atlas.process.output()).toContain(`Atlas is ready at ${atlas.url}, realm local`);
    const stream = await watch(world, `${atlas.url}/v1/watch`);
    expect((await stream.event("snapshot")).json).toMatchObject({ revision: 0, realm: "local", instances: [] });
    await ask(`${atlas.url}/v1/services/identity/instances/host001:5000`, "PUT", { port: 5000 });
    await eventually("the delta", () => {
      expect(stream.events.at(-1)?.json).toMatchObject({ instances: { put: [{ id: "identity/host001:5000" }] } });
    });
    atlas.process.signal("SIGTERM");
    expect(await atlas.process.exited).toBe(0);
    expect(await stream.ended).toBe("end");
    expect(stream.events.at(-1)).toMatchObject({ event: "end", json: { reason: "Atlas is stopping" } });
  });

  scenario("a watcher goes on after Atlas was killed and started again", async (world) => {
    const first = await startAtlas(world);
    await ask(`${first.url}/v1/services/identity/instances/a`, "PUT", { port: 5000 });
    const { generation, revision } = await ask(`${first.url}/v1/info`);
    first.process.signal("SIGKILL");
    await first.process.exited;

    const second = await startAtlas(world, first.port);
    expect(await ask(`${second.url}/v1/info`)).toMatchObject({ generation, revision });
    const position = `${generation}.${revision}`;
    const current = await watch(world, `${second.url}/v1/watch`, { "last-event-id": position });
    await current.event("heartbeat");
    await ask(`${second.url}/v1/services/identity/instances/b`, "PUT", { port: 5000 });
    expect((await current.event("delta")).json).toMatchObject({ since: revision, revision: revision + 1 });
    const behind = await watch(world, `${second.url}/v1/watch?since=${generation}.${revision - 1}`);
    expect((await behind.event("snapshot")).json).toMatchObject({ revision: revision + 1 });
    expect(current.events.some(({ event }) => event === "snapshot")).toBe(false);
  });

  scenario("kill -9 under load loses no acknowledged write, nor its line in the audit trail", async (world) => {
    const port = await world.port();
    const acknowledged: string[] = [];
    for (let round = 0; round < 3; round += 1) {
      const atlas = await startAtlas(world, port);
      const writer = async (worker: number): Promise<void> => {
        for (let number = 0; ; number += 1) {
          const instance = `host-${round}-${worker}-${number}`;
          const written = await ask(`${atlas.url}/v1/services/identity/instances/${instance}`, "PUT", {
            port: 5000,
          }).catch(() => undefined);
          if (written === undefined) return;
          acknowledged.push(`identity/${instance}`);
        }
      };
      const writers = Array.from({ length: 8 }, (_, worker) => writer(worker));
      const target = acknowledged.length + 50 + Math.floor(Math.random() * 100);
      await eventually("enough writes", () => {
        if (acknowledged.length < target) throw new Error(`${acknowledged.length} of ${target}`);
      });
      atlas.process.signal("SIGKILL");
      await Promise.all(writers);
    }
    const atlas = await startAtlas(world, port);
    const { instances } = await ask(`${atlas.url}/v1/services/identity`);
    const present = new Set((instances as { id: string }[]).map(({ id }) => id));
    expect(acknowledged.filter((id) => !present.has(id))).toEqual([]);
    const audit = (await ask(`${atlas.url}/v1/audit?limit=1000`)) as unknown as { target: string }[];
    const audited = new Set(audit.map(({ target }) => target));
    expect(acknowledged.slice(-400).filter((id) => !audited.has(id))).toEqual([]);
  });

  scenario("a reader that does not read is cut off, and nobody else notices", async (world) => {
    const atlas = await startAtlas(world);
    const reading = await watch(world, `${atlas.url}/v1/watch?settings=identity`);
    const stalled = await stall(atlas.port, "/v1/watch?settings=identity");
    world.defer(() => void stalled.destroy());
    const filler = "x".repeat(1_000_000);
    const slow = async (): Promise<boolean> =>
      (await (await fetch(`${atlas.url}/metrics`)).text()).includes(
        'smartstack_atlas_streams_ended_total{by="slow"} 1',
      );
    let version = 0;
    while (!(await slow())) {
      if (version > 40) throw new Error("40 MB unsent, and still not cut off");
      version += 1;
      await ask(`${atlas.url}/v1/settings/identity`, "PUT", { values: { FILLER: `${version}${filler}` } });
    }
    await eventually("the other reader has it all", () => {
      expect(reading.events.at(-1)?.json).toMatchObject({ version });
    });
    expect(atlas.process.output()).toContain("bytes were unsent");
  });

  scenario("a hundred agents get every change, and a waiting write answers when the last has acked", async (world) => {
    const atlas = await startAtlas(world);
    const hosts = Array.from({ length: 100 }, (_, index) => `host${index}`);
    await Promise.all(
      hosts.map(async (host) => {
        const ending = new AbortController();
        world.defer(() => ending.abort());
        const { body } = await fetch(`${atlas.url}/v1/watch?agent=${host}&boot=1`, { signal: ending.signal });
        if (body === null) throw new Error("no body");
        void (async () => {
          for await (const { event, data } of readSse(body)) {
            const { generation, revision } = JSON.parse(data) as { generation: number; revision: number };
            if (event === "delta" || event === "snapshot")
              await ask(`${atlas.url}/v1/agents/${host}/acks`, "POST", { generation, revision });
          }
        })().catch(() => undefined);
      }),
    );
    for (const weight of [1, 2, 3]) {
      const path = `${atlas.url}/v1/services/identity/instances/a?wait=applied`;
      expect(await ask(path, "PUT", { port: 5000, weight })).toMatchObject({ changed: true, applied: 100, total: 100 });
    }
  });
});

describe("docs/api.md", () => {
  scenario("every example answers what the page says", async (world) => {
    const atlas = await startAtlas(world);
    const examples = await readExamples();
    expect(examples.length).toBeGreaterThan(20);
    for (const { command, output } of examples) {
      const shell = command.replaceAll("http://127.0.0.1:7400", atlas.url);
      const { stdout } = await world.run(["bash", "-c", shell]);
      expect([command, normal(stdout)]).toEqual([command, normal(output)]);
    }
  });
});

describe("atlas started wrongly", () => {
  const data = (world: World): readonly string[] => ["--data-dir", join(world.directory, "data")];

  scenario("on a busy port: exit 1, the address named, the data directory free again", async (world) => {
    const port = await world.port();
    const other = Bun.serve({ port, hostname: "127.0.0.1", fetch: () => new Response() });
    world.defer(() => other.stop(true));
    const { code, stderr } = await world.run([BINARY, "atlas", "--listen", `127.0.0.1:${port}`, ...data(world)]);
    expect([code, stderr]).toEqual([1, expect.stringContaining(`cannot listen on 127.0.0.1:${port}`)]);
    await startAtlas(world);
  });

  scenario("on a data directory in use: exit 1, and the first goes on", async (world) => {
    const first = await startAtlas(world);
    const listen = ["--listen", `127.0.0.1:${await world.port()}`];
    const { code, stderr } = await world.run([BINARY, "atlas", ...listen, ...data(world)]);
    expect([code, stderr]).toEqual([1, expect.stringContaining("in use by another Atlas")]);
    expect(stderr).toContain(join(world.directory, "data"));
    await ask(`${first.url}/v1/services/identity`, "PUT", {});
  });

  scenario("on a data directory that cannot be used: exit 1, the directory named", async (world) => {
    const file = join(world.directory, "file");
    await writeFile(file, "");
    const broken = join(world.directory, "broken");
    await mkdir(join(broken, "atlas.db"), { recursive: true });
    const listen = ["--listen", `127.0.0.1:${await world.port()}`];
    for (const directory of [file, broken]) {
      const { code, stderr } = await world.run([BINARY, "atlas", ...listen, "--data-dir", directory]);
      expect([code, stderr]).toEqual([1, expect.stringContaining(directory)]);
      expect(stderr).not.toContain("    at ");
    }
  });

  scenario("another realm's data: exit 1, both realms named", async (world) => {
    const atlas = await startAtlas(world);
    expect(await atlas.process.stop()).toBe(0);
    const listen = ["--listen", `127.0.0.1:${atlas.port}`];
    const { code, stderr } = await world.run([BINARY, "atlas", ...listen, "--realm", "prod", ...data(world)]);
    expect([code, stderr]).toEqual([1, expect.stringContaining("holds the realm local, not prod")]);
  });

  scenario("with flags that make no sense: exit 2, every one named, nothing bound", async (world) => {
    const bad = await world.run([BINARY, "atlas", "--listen", "nowhere", "--realm", "Prod", "--store", "oracle"]);
    expect(bad.code).toBe(2);
    for (const part of ["listen", "realm", "one of embedded, cluster"]) expect(bad.stderr).toContain(part);
    const unknown = await world.run([BINARY, "atlas", "--zookeeper", "127.0.0.1:2181"]);
    expect([unknown.code, unknown.stderr]).toEqual([2, expect.stringContaining("--zookeeper")]);
    const environment = await world.run([BINARY, "atlas"], { env: { SMARTSTACK_LISTEN: "7400" } });
    expect([environment.code, environment.stderr]).toEqual([2, expect.stringContaining("SMARTSTACK_LISTEN")]);
  });

  scenario("open to the network: only with --insecure", async (world) => {
    const listen = ["--listen", `0.0.0.0:${await world.port()}`];
    const { code, stderr } = await world.run([BINARY, "atlas", ...listen, ...data(world)]);
    expect([code, stderr]).toEqual([2, expect.stringContaining("--insecure")]);
    const open = world.spawn([BINARY, "atlas", ...listen, "--insecure", ...data(world)]);
    await eventually("it is ready", () => {
      expect(open.output()).toContain("Atlas is ready");
    });
  });
});

type Example = { readonly command: string; readonly output: string };

/** The `$ command` lines of the page's console blocks, each with the lines under it. */
async function readExamples(): Promise<readonly Example[]> {
  const page = await readFile(join(import.meta.dir, "../../docs/api.md"), "utf8");
  return [...page.matchAll(/```console\n(.*?)```/gs)].flatMap(([, block = ""]) =>
    block
      .split(/^\$ /m)
      .slice(1)
      .map((example) => {
        const [command = "", ...output] = example.trimEnd().split("\n");
        return { command, output: output.join("\n") };
      }),
  );
}

/** What differs from run to run, made the same. */
function normal(output: string): string {
  return output
    .trim()
    .replaceAll(/\b1\d{9}\b/g, "GENERATION")
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "TIME")
    .replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}/g, "UUID")
    .replaceAll(/"version":"\d+\.\d+\.\d+"/g, '"version":"VERSION"');
}

/** Asks for a stream and reads its head alone. */
function stall(port: number, path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1", () => socket.write(`GET ${path} HTTP/1.1\r\nHost: atlas\r\n\r\n`));
    socket.once("error", reject);
    socket.once("data", () => {
      socket.pause();
      socket.on("error", () => undefined);
      resolve(socket);
    });
  });
}
