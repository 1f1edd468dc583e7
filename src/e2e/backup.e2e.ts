// A realm as a file: taken while it is written, brought back whole or not at all, and without cutting what runs.
import { expect } from "bun:test";
import { readdirSync } from "node:fs";
import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { definitionSchema } from "../core/model/service.ts";
import { BINARY, eventually, type Finished, scenario, type World } from "./harness.ts";
import { backend } from "./haproxy-kit.ts";
import { answering, type Atlas, startAtlas, startSidecar } from "./sidecar-kit.ts";

type Line = { readonly kind: string; readonly [key: string]: unknown };

const linesOf = (text: string): readonly Line[] =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => z.looseObject({ kind: z.string() }).parse(JSON.parse(line)));

async function linesIn(path: string): Promise<readonly Line[]> {
  return linesOf(await readFile(path, "utf8"));
}

/** Without what is about this export, or about imports. */
const content = (lines: readonly Line[]): readonly Line[] =>
  lines.filter(({ kind }) => kind !== "header" && kind !== "end" && kind !== "audit");

const run = (world: World, atlas: Pick<Atlas, "url">, ...words: readonly string[]): Promise<Finished> =>
  world.run([BINARY, ...words, "--atlas", atlas.url]);

/** Runs a command that has to end well; what it printed. */
async function done(world: World, atlas: Pick<Atlas, "url">, ...words: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await run(world, atlas, ...words);
  expect([words[0], code, stderr]).toEqual([words[0], 0, ""]);
  return stdout;
}

/** A backup of many instances, none of which exists. */
async function writeBackup(path: string, instances: number): Promise<void> {
  const head = {
    kind: "header",
    format: 1,
    realm: "local",
    generation: 1,
    revision: 1,
    at: "2026-01-01T00:00:00.000Z",
  };
  const lines: object[] = [{ ...head, version: "0.1.0" }];
  for (let service = 0; service < 50; service += 1)
    lines.push({ kind: "definition", service: `service-${service}`, definition: {} });
  const rest = { port: 1, address: "h", enabled: true, weight: 100, zone: "", version: "", agent: null, healthy: null };
  for (let count = 0; count < instances; count += 1)
    lines.push({
      kind: "instance",
      service: `service-${count % 50}`,
      instance: `host${count}`,
      ...rest,
      draining: false,
    });
  lines.push({ kind: "end", lines: lines.length + 1 });
  await writeFile(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
}

scenario(
  "a backup taken while everything is written is one moment, and another Atlas becomes that moment",
  async (world) => {
    const atlas = await startAtlas(world);
    await done(world, atlas, "define", "identity", "owner=core", "retries=5");
    await done(world, atlas, "settings", "set", "identity", "REDIS_DB=1");
    await done(world, atlas, "settings", "set", "identity", "REDIS_DB=2", "--reason", "bigger");
    await done(world, atlas, "ports", "reserve", "identity");
    for (const name of ["a", "b"]) await done(world, atlas, "register", "identity", name, "--port", "5004");
    await done(world, atlas, "disable", "identity", "a");
    // b follows a: at every moment they are equal, or a is one ahead
    const writing = new AbortController();
    const writer = (async () => {
      for (let weight = 1; !writing.signal.aborted; weight = (weight % 256) + 1) {
        for (const name of ["a", "b"]) await atlas.ask(`/v1/services/identity/instances/${name}`, "PATCH", { weight });
      }
    })();
    const files = [1, 2, 3, 4, 5].map((number) => join(world.directory, `${number}.jsonl`));
    const seen = new Set<unknown>();
    for (const file of files) {
      expect(await done(world, atlas, "export", file)).toMatch(/^local at revision \d+: \d+ lines in \S+\n$/);
      const [a, b] = (await linesIn(file))
        .filter(({ kind }) => kind === "instance")
        .map(({ weight }) => Number(weight));
      expect([0, 1, -255]).toContain((a ?? 0) - (b ?? 0));
      seen.add(b);
    }
    writing.abort();
    await writer;
    expect(seen.size).toBeGreaterThan(1);
    const [file = ""] = files;
    // settings may be secrets
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect(readdirSync(world.directory).filter((name) => name.endsWith(".tmp"))).toEqual([]);

    const other = await startAtlas(world);
    const would = await done(world, other, "import", file, "--dry-run");
    expect(would).toStartWith("would become local as it was at ");
    expect(await other.ask("/v1/info")).toMatchObject({ revision: 0 });
    const first = await done(world, other, "import", file, "--reason", "moved");
    expect(first).toMatch(/^local as it was at \S+ \S+, in generation \d+\n/);
    expect(first).toMatch(/^instances +2 +2 +0 +0$/m);
    const again = join(world.directory, "again.jsonl");
    await done(world, other, "export", again);
    expect(content(await linesIn(again))).toEqual(content(await linesIn(file)));
    expect((await linesIn(again)).findLast(({ kind }) => kind === "audit")).toMatchObject({
      entry: { kind: "registry.import", from: "127.0.0.1", reason: "moved" },
    });
    // the same again is nothing, and the operator's edits go on from where they were
    const { generation } = await other.ask("/v1/info");
    expect(await done(world, other, "import", file)).toStartWith("was so already: local as it was at ");
    expect(await other.ask("/v1/info")).toMatchObject({ generation });
    expect(await done(world, other, "settings", "history", "identity")).toContain('{"REDIS_DB":1}');
  },
);

scenario("commands in a row, and refusals that say what to do", async (world) => {
  const [atlas, other] = [await startAtlas(world), await startAtlas(world)];
  await done(world, atlas, "register", "identity", "a", "--port", "5004");
  const piped = await world.run(
    [
      "bash",
      "-o",
      "pipefail",
      "-c",
      `"$0" export - --no-audit --atlas "$1" | "$0" import - --json --atlas "$2"`,
    ].concat([BINARY, atlas.url, other.url]),
  );
  expect([piped.code, piped.stderr]).toEqual([0, ""]);
  expect(JSON.parse(piped.stdout)).toMatchObject({ changed: true, instances: { total: 1, added: 1 } });

  const file = join(world.directory, "backup.jsonl");
  await done(world, atlas, "export", file);
  await done(world, other, "register", "billing", "b", "--port", "5005");
  const refused = await run(world, other, "import", file);
  expect(refused).toMatchObject({ code: 1, stdout: "" });
  expect(refused.stderr).toContain("the registry is not empty (2 services, 2 instances");
  expect(refused.stderr).toContain("--replace does it");
  // a yes for one command is none for all
  const variable = await world.run([BINARY, "import", file, "--atlas", other.url], {
    env: { SMARTSTACK_REPLACE: "true" },
  });
  expect(variable.code).toBe(1);
  expect(await done(world, other, "import", file, "--replace")).toMatch(/^services +1 +0 +0 +1$/m);

  const text = await readFile(file, "utf8");
  await writeFile(file, text.replace('"realm":"local"', '"realm":"prod"'));
  const foreign = await run(world, other, "import", file, "--replace");
  expect([foreign.code, foreign.stderr]).toEqual([1, expect.stringContaining("of the realm prod")]);
  expect(foreign.stderr).toContain("--force-realm");
  expect(await run(world, other, "import", file, "--replace", "--force-realm")).toMatchObject({ code: 0 });

  await writeFile(file, text.split("\n").slice(0, 2).join("\n"));
  const cut = await run(world, other, "import", file);
  expect([cut.code, cut.stderr]).toEqual([1, expect.stringContaining("the end is missing")]);
  await writeFile(file, text.replace('"port":5004', '"port":"x"').replace('"kind":"definition"', '"kind":"song"'));
  const bad = await run(world, other, "import", file);
  expect(bad.stderr).toMatch(/^line 2: is of no kind.*\nline 3: port: .*$/m);
  expect(await run(world, other, "import", "/nowhere")).toMatchObject({ code: 2 });
  expect(await run(world, other, "export", "/dev/null")).toMatchObject({ code: 2 });
  expect(await run(world, other, "export", "/nowhere/x")).toMatchObject({ code: 1 });
  expect(await run(world, { url: "http://127.0.0.1:9" }, "export", file)).toMatchObject({ code: 3 });
});

scenario("a backup that Atlas could not finish leaves the one before it", async (world) => {
  const file = join(world.directory, "backup.jsonl");
  await writeFile(file, "the good one\n");
  const head =
    '{"kind":"header","realm":"local","generation":1,"revision":1}\n{"kind":"port","service":"a","port":1}\n';
  // one ends without an end, one breaks off, one is cut within its last line
  const bodies = [head, `${head}{"kind":"end","lines":9}\n`, `${head}{"kind":"end","li`];
  for (const body of bodies) {
    const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response(body) });
    const { code, stderr } = await run(world, { url: `http://127.0.0.1:${server.port}` }, "export", file);
    await server.stop(true);
    expect([code, stderr]).toEqual([1, expect.stringContaining("broke off before its end")]);
  }
  expect(await readFile(file, "utf8")).toBe("the good one\n");
  expect(readdirSync(world.directory)).toEqual(["backup.jsonl"]);
});

scenario(
  "killed in the middle of an import, Atlas has what was or what was to be, and the import is repeated",
  async (world) => {
    const file = join(world.directory, "large.jsonl");
    const count = 20_000;
    await writeBackup(file, count);
    let atlas = await startAtlas(world);
    await done(world, atlas, "register", "identity", "a", "--port", "5004");
    const began = performance.now();
    const probe = await startAtlas(world);
    await done(world, probe, "import", file);
    const took = performance.now() - began;
    for (let round = 1; round <= 6; round += 1) {
      const importing = run(world, atlas, "import", file, "--replace");
      await Bun.sleep((took * round) / 6);
      atlas.process.signal("SIGKILL");
      await importing;
      await atlas.process.exited;
      atlas = await startAtlas(world, atlas);
      const services = z
        .array(z.looseObject({ instances: z.int() }))
        .parse(await (await fetch(`${atlas.url}/v1/services`)).json());
      const instances = services.reduce((sum, service) => sum + service.instances, 0);
      expect([1, count]).toContain(instances);
      if (instances === count) break;
    }
    expect(await done(world, atlas, "import", file, "--replace")).toMatch(new RegExp(`^instances +${count} `, "m"));
    const again = join(world.directory, "again.jsonl");
    await done(world, atlas, "export", again, "--no-audit");
    expect((await linesIn(again)).filter(({ kind }) => kind === "instance")).toHaveLength(count);
  },
);

scenario("an older backup does not cut what runs: it is asked, held, and registered again", async (world) => {
  const atlas = await startAtlas(world);
  const sidecar = await startSidecar(world, atlas);
  const quick = definitionSchema.parse({ healthcheck: { intervalMs: 300, timeoutMs: 300 } });
  const [one, two] = [backend(world, "one"), backend(world, "two")];
  await sidecar.client.put("identity", "one", { port: one.port, definition: quick });
  await eventually("one is usable", async () => expect((await sidecar.why("identity")).usable).toBe(1));
  const file = join(world.directory, "backup.jsonl");
  await done(world, atlas, "export", file);
  // since then: another instance of the agent's, and one put by hand
  await sidecar.client.put("identity", "two", { port: two.port, definition: quick });
  const three = backend(world, "three");
  await done(world, atlas, "register", "identity", "three", "--port", String(three.port), "--address", "127.0.0.1");
  await eventually("all are usable", async () => expect((await sidecar.why("identity")).usable).toBe(3));

  let failed = 0;
  let sent = 0;
  const going = new AbortController();
  const load = (async () => {
    while (!going.signal.aborted) {
      sent += 1;
      await answering(sidecar.bind).catch(() => (failed += 1));
      await Bun.sleep(5);
    }
  })();
  await done(world, atlas, "import", file, "--replace", "--wait");
  await eventually("what the agent owns is registered again", async () =>
    expect((await atlas.instances("identity")).map(({ instance }) => instance).sort()).toEqual(["one", "two"]),
  );
  const why = await sidecar.why("identity");
  expect(why.usable).toBe(3);
  await Bun.sleep(1_000);
  going.abort();
  await load;
  expect([sent > 100, failed]).toEqual([true, 0]);
});

scenario("a write goes on at the next Atlas, also when the first one took it and never answered", async (world) => {
  const atlas = await startAtlas(world);
  await done(world, atlas, "register", "identity", "a", "--port", "5004");
  // the first takes the request to Atlas and breaks the connection instead of answering; the second is slower to say ready
  let broken = 0;
  const relay = async (request: Request): Promise<Response> =>
    fetch(new URL(new URL(request.url).pathname + new URL(request.url).search, atlas.url), {
      method: request.method,
      headers: { "content-type": request.headers.get("content-type") ?? "" },
      ...(request.method === "GET" ? {} : { body: await request.text() }),
    });
  const first = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(request, server) {
      const answer = await relay(request);
      if (request.url.endsWith("/readyz")) return answer;
      broken += 1;
      await server.stop(true);
      return answer;
    },
  });
  const second = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(request) {
      if (request.url.endsWith("/readyz")) await Bun.sleep(500);
      return relay(request);
    },
  });
  world.defer(() => Promise.all([first.stop(true), second.stop(true)]));
  const urls = [first, second].map(({ port }) => `http://127.0.0.1:${port}`).join(",");
  const words = ["disable", "identity", "a", "--reason", "once"];
  const { code, stdout, stderr } = await world.run([BINARY, ...words, "--atlas", urls]);
  expect([code, stderr]).toEqual([0, ""]);
  // the first time it was done, the second time it was so already
  expect([broken, stdout]).toEqual([1, "identity/a was disabled already\n"]);
  const dead = await world.run([BINARY, "enable", "identity", "a", "--atlas", `http://127.0.0.1:9,${atlas.url}`]);
  expect([dead.code, dead.stderr]).toEqual([0, ""]);
  const trail = z
    .array(z.looseObject({ kind: z.string(), reason: z.string().optional() }))
    .parse(await (await fetch(`${atlas.url}/v1/audit`)).json());
  expect(trail.filter(({ reason }) => reason === "once")).toHaveLength(1);
});
