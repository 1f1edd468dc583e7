// `smartstack atlas --store cluster` as people run it: two Atlases of the compiled binary on a real ZooKeeper and Amazon's
// DynamoDB Local, either of which goes away and comes back.
import { expect } from "bun:test";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { BINARY, eventually, type Finished, flags, scenario, type Spawned, type World } from "./harness.ts";
import { startDynamoDb, startZooKeeper, startZooKeeperEnsemble } from "./parts.ts";

const CREDENTIALS = {
  AWS_ACCESS_KEY_ID: "local",
  AWS_SECRET_ACCESS_KEY: "local",
  AWS_EC2_METADATA_DISABLED: "true",
  // what a host behind a proxy has; nothing of ours may take it for loopback
  HTTP_PROXY: "http://127.0.0.1:9",
  HTTPS_PROXY: "http://127.0.0.1:9",
};

type Answer = { readonly status: number; readonly headers: Headers; readonly body: never };

type Atlas = {
  readonly url: string;
  readonly process: Spawned;
  ask(method: string, path: string, body?: unknown): Promise<Answer>;
  /** The body of a GET that must be 200. */
  get(path: string): Promise<never>;
};

type Servers = { readonly zookeeper: string; readonly endpoint: string };

function commandOf(servers: Servers, more: readonly string[]): readonly string[] {
  const options = flags({
    store: "cluster",
    zookeeper: servers.zookeeper,
    "dynamodb-endpoint": servers.endpoint,
    "dynamodb-region": "us-east-1",
  });
  return [BINARY, "atlas", ...options, ...more];
}

let places = 0;

async function startAtlas(
  world: World,
  servers: Servers,
  more: readonly string[] = [],
  place = `atlas-${(places += 1)}`,
): Promise<Atlas> {
  const port = await world.port();
  const process = world.spawn(
    commandOf(servers, ["--listen", `127.0.0.1:${port}`, "--data-dir", join(world.directory, place), ...more]),
    { env: CREDENTIALS, name: place },
  );
  const url = `http://127.0.0.1:${port}`;
  const ask: Atlas["ask"] = async (method, path, body) => {
    const response = await fetch(`${url}${path}`, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
      signal: AbortSignal.timeout(15_000),
      keepalive: false,
    });
    return { status: response.status, headers: response.headers, body: (await response.json()) as never };
  };
  const died = process.exited.then((code) => {
    throw new Error(`Atlas ended with ${code}`);
  });
  const ready = eventually(
    "Atlas is ready",
    async () => expect((await ask("GET", "/readyz")).status).toBe(200),
    20_000,
  );
  await Promise.race([ready, died]);
  died.catch(() => undefined);
  return {
    url,
    process,
    ask,
    async get(path) {
      const { status, body } = await ask("GET", path);
      expect([path, status]).toEqual([path, 200]);
      return body;
    },
  };
}

/** Runs an Atlas that is expected to refuse. */
function refused(world: World, servers: Servers, more: readonly string[]): Promise<Finished> {
  places += 1;
  const own = ["--listen", "127.0.0.1:0", "--data-dir", join(world.directory, `refused-${places}`)];
  return world.run(commandOf(servers, [...own, ...more]), { env: CREDENTIALS });
}

const degradedOf = async (atlas: Atlas): Promise<string> =>
  ((await atlas.get("/readyz")) as { degraded: string[] }).degraded.join("; ");

scenario(
  "two Atlases are one registry, through outages of DynamoDB and ZooKeeper and a second run",
  async (world) => {
    const dynamodbPlace = { port: await world.port(), directory: join(world.directory, "dynamodb") };
    const [zookeeper, running] = await Promise.all([
      startZooKeeperEnsemble(world, 1),
      startDynamoDb(world, dynamodbPlace),
    ]);
    let dynamodb = running;
    const servers = { zookeeper: zookeeper.servers, endpoint: dynamodb.endpoint };
    // both create what is missing, at once
    const [one, two] = await Promise.all([
      startAtlas(world, servers, ["--dynamodb-create-table"], "one"),
      startAtlas(world, servers, ["--dynamodb-create-table"], "two"),
    ]);
    await eventually("it says where the registry lies", () =>
      expect(one.process.output()).toContain("the DynamoDB table smartstack-local"),
    );
    expect(await one.get("/v1/info")).toMatchObject({ store: "cluster" });
    await eventually("both know of each other", async () => {
      for (const atlas of [one, two]) expect(await atlas.get("/v1/info")).toMatchObject({ replicas: 2 });
    });

    // whatever is written through one is there through the other
    expect((await one.ask("PUT", "/v1/services/identity", { owner: "core" })).status).toBe(201);
    await eventually("two knows identity", () => two.get("/v1/services/identity"));
    expect((await two.ask("PUT", "/v1/services/identity/instances/host001:5000", { port: 5000 })).status).toBe(201);
    expect((await one.ask("PUT", "/v1/settings/identity", { values: { A: 1 } })).body).toMatchObject({ version: 1 });
    const same = async (): Promise<void> => {
      for (const path of ["/v1/services", "/v1/services/identity", "/v1/settings/identity", "/v1/ports"]) {
        expect([path, await two.get(path)]).toEqual([path, await one.get(path)]);
      }
    };
    await eventually("both show the same", same);

    // both at the same moment
    const owners = ["a", "b", "c", "d", "e", "f"];
    const puts = await Promise.all(
      owners.map((owner, index) => (index % 2 === 0 ? one : two).ask("PUT", "/v1/services/billing", { owner })),
    );
    expect(puts.map(({ status }) => status < 300)).toEqual(owners.map(() => true));
    const reservations = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        (index % 2 === 0 ? one : two).ask("POST", "/v1/ports", { service: `s${index % 15}` }),
      ),
    );
    const given = reservations.map(({ body }) => body as { service: string; port: number });
    expect(new Set(given.map(({ service, port }) => `${service} ${port}`)).size).toBe(15);
    expect(new Set(given.map(({ port }) => port)).size).toBe(15);
    await eventually("both show the same again", same);
    const kinds = async (atlas: Atlas): Promise<string[]> =>
      ((await atlas.get("/v1/audit?limit=1000")) as { kind: string }[]).map(({ kind }) => kind);
    await eventually("the trail is one", async () => {
      expect(await kinds(one)).toEqual(await kinds(two));
      expect((await kinds(one)).filter((kind) => kind === "port.reserve")).toHaveLength(15);
    });
    const before = (await kinds(one)).length;

    // DynamoDB away: only metadata stops
    dynamodb.process.signal("SIGKILL");
    await dynamodb.process.exited;
    const metadata = await one.ask("PUT", "/v1/services/identity", { owner: "other" });
    expect([metadata.status, metadata.headers.get("retry-after")]).toEqual([503, "1"]);
    expect(metadata.body).toMatchObject({ code: "unavailable", detail: expect.stringContaining("DynamoDB") });
    for (let weight = 1; weight <= 30; weight += 1) {
      const started = performance.now();
      const atlas = weight % 2 === 0 ? one : two;
      const { status } = await atlas.ask("PATCH", "/v1/services/identity/instances/host001:5000", { weight });
      expect(status).toBe(200);
      expect(performance.now() - started).toBeLessThan(1_000);
    }
    expect(await degradedOf(one)).toContain("does not answer");
    expect((await one.ask("GET", "/v1/audit")).status).toBe(503);
    expect(await one.get("/v1/settings/identity")).toMatchObject({ values: { A: 1 } });
    expect(await (await fetch(`${one.url}/metrics`)).text()).toContain("smartstack_atlas_audit_waiting 15");
    // and what waits outlives its Atlas
    one.process.signal("SIGKILL");
    await one.process.exited;
    expect(await readdir(join(world.directory, "one/audit"))).not.toEqual([]);

    dynamodb = await startDynamoDb(world, dynamodbPlace);
    const again = await startAtlas(world, servers, [], "one");
    await eventually("nothing is degraded", async () => expect(await degradedOf(two)).toBe(""));
    await eventually("every entry is there, once", async () => expect(await kinds(again)).toHaveLength(before + 30));
    expect((await two.ask("PUT", "/v1/services/identity", { owner: "other" })).status).toBe(200);
    await eventually("the other sees it", async () =>
      expect(await again.get("/v1/services/identity")).toMatchObject({ definition: { owner: "other" } }),
    );

    // ZooKeeper away: reads go on
    for (const node of zookeeper.nodes) await node.kill();
    await eventually("it is noticed", async () => expect(await degradedOf(two)).not.toBe(""));
    const write = await two.ask("PATCH", "/v1/services/identity/instances/host001:5000", { weight: 77 });
    expect([write.status, Number(write.headers.get("retry-after")) > 0]).toEqual([503, true]);
    expect(await two.get("/v1/services/identity")).toMatchObject({ instances: [{ weight: 30 }] });
    expect(await two.get("/v1/ports")).toHaveLength(15);
    for (const node of zookeeper.nodes) node.start();
    await zookeeper.serving();
    await eventually(
      "writes work again",
      async () => {
        const { status } = await two.ask("PATCH", "/v1/services/identity/instances/host001:5000", { weight: 78 });
        expect(status).toBe(200);
      },
      20_000,
    );
    await eventually("and everybody sees them", async () =>
      expect(await again.get("/v1/services/identity")).toMatchObject({ instances: [{ weight: 78 }] }),
    );

    expect([await again.process.stop(), await two.process.stop()]).toEqual([0, 0]);
    const third = await startAtlas(world, servers);
    expect(await third.get("/v1/services/identity")).toMatchObject({
      definition: { owner: "other" },
      instances: [{ weight: 78 }],
    });
    expect(await third.get("/v1/ports")).toHaveLength(15);
    expect(await third.get("/v1/settings/identity")).toMatchObject({ version: 1, values: { A: 1 } });
  },
  120_000,
);

scenario("an Atlas that cannot have its stores says which, and what to do, and ends", async (world) => {
  const [zookeeper, dynamodb] = await Promise.all([startZooKeeper(world), startDynamoDb(world)]);
  const servers = { zookeeper: zookeeper.address, endpoint: dynamodb.endpoint };

  const table = await refused(world, servers, []);
  expect([table.code, table.stderr]).toEqual([1, expect.stringContaining("DynamoDB has no table smartstack-local")]);
  expect(table.stderr).toContain("--dynamodb-create-table");

  const chroot = await refused(world, { ...servers, zookeeper: `${servers.zookeeper}/nowhere` }, [
    "--dynamodb-create-table",
  ]);
  expect([chroot.code, chroot.stderr]).toEqual([1, expect.stringContaining("/nowhere")]);

  const away = await refused(world, { ...servers, endpoint: `http://127.0.0.1:${await world.port()}` }, []);
  expect([away.code, away.stderr]).toEqual([1, expect.stringContaining("DynamoDB does not answer")]);

  const first = await startAtlas(world, servers, ["--dynamodb-create-table"]);
  const realm = await refused(world, servers, ["--realm", "prod", "--dynamodb-table", "smartstack-local"]);
  expect([realm.code, realm.stderr]).toEqual([1, expect.stringMatching(/realm local/)]);
  expect((await first.ask("GET", "/readyz")).status).toBe(200);
});

scenario("options that do not go together end it before anything is bound, each with its source", async (world) => {
  const run = (...given: readonly string[]): Promise<Finished> =>
    world.run([BINARY, "atlas", "--listen", "127.0.0.1:0", "--data-dir", world.directory, ...given]);
  const missing = await run("--store", "cluster");
  expect([missing.code, missing.stderr]).toEqual([2, expect.stringContaining("zookeeper (flag --store): is missing")]);
  const strangers = await run("--zookeeper", "127.0.0.1:2181", "--dynamodb-create-table");
  expect(strangers.code).toBe(2);
  expect(strangers.stderr).toContain("zookeeper (flag --zookeeper): is for --store cluster");
  expect(strangers.stderr).toContain("dynamodb-create-table (flag --dynamodb-create-table): is for --store cluster");
  const bad = await run("--store", "cluster", "--zookeeper", "zk1", "--dynamodb-table", "a b", "--advertise", "me");
  expect(bad.code).toBe(2);
  for (const key of ["zookeeper", "dynamodb-table", "advertise"])
    expect(bad.stderr).toContain(`${key} (flag --${key})`);
  const everywhere = await world.run([
    BINARY,
    "atlas",
    ...flags({ listen: "0.0.0.0:0", store: "cluster", zookeeper: "127.0.0.1:1", "data-dir": world.directory }),
    "--insecure",
  ]);
  expect([everywhere.code, everywhere.stderr]).toEqual([2, expect.stringContaining("--advertise http://THIS-HOST")]);
});
