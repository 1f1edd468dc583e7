// The DynamoDB half of the cluster store on Amazon's own DynamoDB Local: the contract, races, and everything that goes wrong.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import {
  CreateTableCommand,
  DescribeTableCommand,
  DescribeTimeToLiveCommand,
  DynamoDBClient,
  PutItemCommand,
  ScanCommand,
} from "@aws-sdk/client-dynamodb";
import { fakeClock } from "../core/lib/clock.ts";
import { errorCode } from "../core/lib/errors.ts";
import { defaultDefinition } from "../core/model/service.ts";
import { describeStoreContract, type StoreUnderTest } from "../core/registry/contract.ts";
import { DynamoDbMeta, type DynamoDbMetaOptions } from "../core/registry/dynamodb.ts";
import type { AuditEntry } from "../core/registry/meta-store.ts";
import { eventually, freePort, scenario, type Spawned, type World } from "./harness.ts";
import { startDynamoDb } from "./parts.ts";
import { spawn } from "./process.ts";
import { freshChroot, type Hand, openHand, type SharedZooKeeper, shareZooKeeper, storeOn } from "./zookeeper-kit.ts";

process.env.AWS_ACCESS_KEY_ID = "local";
process.env.AWS_SECRET_ACCESS_KEY = "local";
process.env.AWS_EC2_METADATA_DISABLED = "true";

// one server for every test that does not harm it: a JVM takes seconds to start
let directory: string;
let server: { readonly endpoint: string; readonly process: Spawned };
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-dynamodb-"));
  const spawned: World["spawn"] = (command, options = {}) => spawn(command, { cwd: directory, ...options });
  server = await startDynamoDb({ port: freePort, spawn: spawned, directory });
}, 60_000);
afterAll(async () => {
  await server.process.stop();
  await rm(directory, { recursive: true, force: true });
});

let tables = 0;
/** A table that nobody had before. */
function newTable(): string {
  tables += 1;
  return `smartstack-test-${tables}`;
}

let places = 0;
async function newPlace(): Promise<string> {
  places += 1;
  const place = join(directory, `place-${places}`);
  await mkdir(place);
  return place;
}

type Given = Partial<DynamoDbMetaOptions> & { readonly table: string };

async function metaOf({ dataDir, ...given }: Given): Promise<DynamoDbMeta> {
  return new DynamoDbMeta({
    endpoint: server.endpoint,
    region: "us-east-1",
    realm: "test",
    createTable: true,
    dataDir: dataDir ?? (await newPlace()),
    ...given,
  });
}

async function opened(given: Given): Promise<DynamoDbMeta> {
  const meta = await metaOf(given);
  await meta.open();
  return meta;
}

/** What opening is refused with. */
async function refusal(given: Given): Promise<{ code: string | undefined; message: string; hint: string }> {
  const meta = await metaOf(given);
  try {
    await meta.open();
  } catch (error) {
    const hint = error instanceof Error && "hint" in error ? String(error.hint) : "";
    return { code: errorCode(error), message: String(error), hint };
  } finally {
    await meta.close();
  }
  throw new Error("this should have been refused");
}

async function codeOf(work: Promise<unknown>): Promise<string | undefined> {
  return work.then(
    () => "none",
    (error: unknown) => errorCode(error) ?? String(error),
  );
}

const client = (): DynamoDBClient => new DynamoDBClient({ endpoint: server.endpoint, region: "us-east-1" });

function entry(number: number, more: Partial<AuditEntry> = {}): AuditEntry {
  return {
    at: new Date(Date.now()).toISOString(),
    who: "ann",
    from: "127.0.0.1",
    kind: "instance.put",
    target: `identity/${number}`,
    reason: undefined,
    before: null,
    after: { number },
    ...more,
  };
}

const targets = (entries: readonly AuditEntry[]): string[] => entries.map(({ target }) => target);

describe("both halves of the cluster store:", () => {
  let zookeeper: SharedZooKeeper;
  let hand: Hand;
  beforeAll(async () => {
    zookeeper = await shareZooKeeper(1);
    hand = await openHand(zookeeper.servers);
  }, 60_000);
  afterAll(async () => {
    await hand.close();
    await zookeeper.stop();
  });

  describeStoreContract("ZooKeeper and DynamoDB", async () => {
    const place = await newPlace();
    const table = newTable();
    const servers = zookeeper.servers + (await freshChroot(hand));
    // ZooKeeper dates removals; DynamoDB's deadlines need time that passes by itself
    const clock = fakeClock(Date.now());
    const open = async (): Promise<StoreUnderTest> => {
      const live = storeOn(servers, { clock });
      const meta = await metaOf({ table, dataDir: place });
      await live.open();
      await meta.open();
      const close = async (): Promise<void> => {
        await meta.close();
        await live.close();
      };
      return {
        live,
        meta,
        async reopen() {
          await close();
          return open();
        },
        async advance(ms) {
          await clock.advance(ms);
          await live.purge();
        },
        dispose: close,
      };
    };
    return open();
  });
});

describe("the table", () => {
  test("one that is missing is named together with what creates it, and is not created", async () => {
    const table = newTable();
    const { code, message, hint } = await refusal({ table, createTable: false });
    expect(code).toBe("store_missing");
    expect(message).toContain(table);
    expect(hint).toContain("--dynamodb-create-table");
    expect(await codeOf(client().send(new DescribeTableCommand({ TableName: table })))).toContain("ResourceNotFound");
  });

  test("it is made with its keys, billed on demand, protected from deletion, and lets old audit entries go", async () => {
    const table = newTable();
    await (await opened({ table })).close();
    const { Table } = await client().send(new DescribeTableCommand({ TableName: table }));
    expect(Table?.BillingModeSummary?.BillingMode).toBe("PAY_PER_REQUEST");
    expect(Table?.KeySchema?.map(({ AttributeName }) => AttributeName)).toEqual(["pk", "sk"]);
    expect(Table?.DeletionProtectionEnabled).toBe(true);
    const { TimeToLiveDescription } = await client().send(new DescribeTimeToLiveCommand({ TableName: table }));
    expect(TimeToLiveDescription).toMatchObject({ TimeToLiveStatus: "ENABLED", AttributeName: "expires" });
    // and found again without the flag
    await (await opened({ table, createTable: false })).close();
  });

  test("several who create it at once all get it", async () => {
    const table = newTable();
    const metas = await Promise.all(Array.from({ length: 4 }, () => opened({ table })));
    const ports = await Promise.all(metas.map((meta, index) => meta.reservePort(`s${index}`, new Set())));
    expect(new Set(ports.map(({ port }) => port)).size).toBe(4);
    for (const meta of metas) await meta.close();
  });

  test("another realm's is refused", async () => {
    const table = newTable();
    await (await opened({ table, realm: "prod" })).close();
    const { code, message } = await refusal({ table });
    expect(code).toBe("store_realm");
    expect(message).toContain("belongs to the realm prod, not test");
  });

  test("a newer version's is refused", async () => {
    const table = newTable();
    await (await opened({ table })).close();
    const meta = { pk: { S: "smartstack" }, sk: { S: "smartstack" }, realm: { S: "test" }, schema: { N: "99" } };
    await client().send(new PutItemCommand({ TableName: table, Item: meta }));
    expect((await refusal({ table })).code).toBe("store_newer");
  });

  test("one with other keys, or with somebody else's items, is refused and left as it is", async () => {
    const odd = newTable();
    await client().send(
      new CreateTableCommand({
        TableName: odd,
        BillingMode: "PAY_PER_REQUEST",
        KeySchema: [{ AttributeName: "id", KeyType: "HASH" }],
        AttributeDefinitions: [{ AttributeName: "id", AttributeType: "S" }],
      }),
    );
    expect((await refusal({ table: odd })).code).toBe("store_foreign");
    expect((await client().send(new ScanCommand({ TableName: odd }))).Items).toEqual([]);

    const alike = newTable();
    await client().send(createAlike(alike));
    const song = { pk: { S: "songs" }, sk: { S: "1" } };
    await client().send(new PutItemCommand({ TableName: alike, Item: song }));
    const { code, message } = await refusal({ table: alike });
    expect(code).toBe("store_foreign");
    expect(message).toContain(alike);
    expect((await client().send(new ScanCommand({ TableName: alike }))).Items).toEqual([song]);
  });

  test("an empty one that somebody else made is taken only when asked for", async () => {
    const table = newTable();
    await client().send(createAlike(table));
    const { code, hint } = await refusal({ table, createTable: false });
    expect(code).toBe("store_missing");
    expect(hint).toContain("--dynamodb-create-table");
    await (await opened({ table })).close();
    await (await opened({ table, createTable: false })).close();
  });

  test("an endpoint where nobody answers is told within seconds", async () => {
    const endpoint = `http://127.0.0.1:${await freePort()}`;
    const started = performance.now();
    const { code, message, hint } = await refusal({ table: newTable(), endpoint });
    expect(code).toBe("unavailable");
    expect(message).toContain(endpoint);
    expect(hint).not.toBe("");
    expect(performance.now() - started).toBeLessThan(6_000);
  });

  test("no credentials anywhere are told within seconds", async () => {
    const { AWS_ACCESS_KEY_ID: id } = process.env;
    delete process.env.AWS_ACCESS_KEY_ID;
    try {
      const started = performance.now();
      expect(await refusal({ table: newTable() })).toMatchObject({ code: "store_credentials" });
      expect(performance.now() - started).toBeLessThan(6_000);
    } finally {
      process.env.AWS_ACCESS_KEY_ID = id;
    }
  });
});

function createAlike(table: string): CreateTableCommand {
  return new CreateTableCommand({
    TableName: table,
    BillingMode: "PAY_PER_REQUEST",
    KeySchema: [
      { AttributeName: "pk", KeyType: "HASH" },
      { AttributeName: "sk", KeyType: "RANGE" },
    ],
    AttributeDefinitions: [
      { AttributeName: "pk", AttributeType: "S" },
      { AttributeName: "sk", AttributeType: "S" },
    ],
  });
}

describe("replicas that race", () => {
  test("get ports that are unique, and one for each service, through hundreds of reservations and releases", async () => {
    const table = newTable();
    const replicas = await Promise.all(Array.from({ length: 3 }, () => opened({ table })));
    const writer = async (meta: DynamoDbMeta): Promise<void> => {
      for (let number = 0; number < 50; number += 1) {
        const service = `s${Math.floor(Math.random() * 12)}`;
        if (Math.random() < 0.35) await meta.releasePort(service);
        else await meta.reservePort(service, new Set([5002]));
      }
    };
    await Promise.all(replicas.flatMap((meta) => [writer(meta), writer(meta)]));
    const [meta] = replicas;
    const ports = (await meta?.ports()) ?? [];
    expect(new Set(ports.map(({ port }) => port)).size).toBe(ports.length);
    expect(new Set(ports.map(({ service }) => service)).size).toBe(ports.length);
    expect(ports.map(({ port }) => port)).not.toContain(5002);
    // both items of every reservation, and no others
    const { Items = [] } = await client().send(new ScanCommand({ TableName: table }));
    const pairs = Items.filter(({ pk }) => pk?.S === "ports").map(({ sk }) => sk?.S);
    expect(new Set(pairs)).toEqual(
      new Set(ports.flatMap(({ service, port }) => [`port#${String(port).padStart(5, "0")}`, `service#${service}`])),
    );
    for (const replica of replicas) await replica.close();
  }, 60_000);

  test("who ask for one service's port at once get the same", async () => {
    const table = newTable();
    const replicas = await Promise.all(Array.from({ length: 3 }, () => opened({ table })));
    for (let number = 0; number < 10; number += 1) {
      const answers = await Promise.all(replicas.map((meta) => meta.reservePort(`s${number}`, new Set())));
      expect(new Set(answers.map(({ port }) => port)).size).toBe(1);
      expect(answers.filter(({ created }) => created)).toHaveLength(1);
    }
    for (const replica of replicas) await replica.close();
  });

  test("store versions with numbers of their own that only grow, and each keeps what was written", async () => {
    const table = newTable();
    const replicas = await Promise.all(Array.from({ length: 3 }, () => opened({ table })));
    const written = new Map<number, string>();
    const write = async (meta: DynamoDbMeta, who: string): Promise<void> => {
      let last = 0;
      for (let number = 0; number < 40; number += 1) {
        const owner = `${who}-${number}`;
        const version = await meta.addDefinition("identity", {
          definition: { ...defaultDefinition, owner },
          published: undefined,
        });
        expect(version).toBeGreaterThan(last);
        expect(written.has(version)).toBe(false);
        written.set(version, owner);
        last = version;
      }
    };
    await Promise.all(replicas.map((meta, index) => write(meta, `r${index}`)));
    expect([...written.keys()].sort((a, b) => a - b)).toEqual(Array.from({ length: 120 }, (_, index) => index + 1));
    const [meta] = replicas;
    for (const [version, owner] of [...written].slice(0, 20)) {
      expect((await meta?.definition("identity", version))?.definition.owner).toBe(owner);
    }
    for (const replica of replicas) await replica.close();
  }, 60_000);

  test("a restore while others reserve ends in reservations that agree with each other", async () => {
    const table = newTable();
    const [one, two] = await Promise.all([opened({ table }), opened({ table })]);
    const ports = Array.from({ length: 130 }, (_, index) => ({ service: `restored-${index}`, port: 6000 + index }));
    await Promise.all([
      one.replacePorts(ports),
      ...Array.from({ length: 10 }, (_, index) => two.reservePort(`late-${index}`, new Set())),
    ]);
    await one.replacePorts(ports);
    expect(await two.ports()).toEqual(ports);
    expect((await two.reservePort("restored-3", new Set())).port).toBe(6003);
    await one.close();
    await two.close();
  });
});

test("a write whose answer is lost is made once, and its writer told so", async () => {
  const table = newTable();
  await (await opened({ table })).close();
  // a proxy that lets the first write of each kind through and then hangs up
  const lost = new Set<string>();
  const proxy = createServer((request, response) => {
    void (async () => {
      const target = String(request.headers["x-amz-target"]);
      const answer = await fetch(server.endpoint, {
        method: "POST",
        headers: {
          "content-type": "application/x-amz-json-1.0",
          "x-amz-target": target,
          authorization: String(request.headers.authorization),
        },
        body: await new Response(Readable.toWeb(request) as ReadableStream<Uint8Array>).text(),
      });
      const body = await answer.text();
      if (/PutItem|TransactWrite|BatchWrite/.test(target) && !lost.has(target)) {
        lost.add(target);
        request.socket.destroy();
        return;
      }
      response.writeHead(answer.status, { "content-type": "application/x-amz-json-1.0" }).end(body);
    })();
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const { port } = proxy.address() as AddressInfo;
  const meta = await opened({ table, endpoint: `http://127.0.0.1:${port}` });
  expect(await meta.addSettings("identity", { A: 1 }, "2026-01-01T00:00:00.000Z", "ann")).toBe(1);
  expect(await meta.settingsHistory("identity", 10)).toHaveLength(1);
  expect(await meta.reservePort("identity", new Set())).toEqual({ service: "identity", port: 5000, created: true });
  await meta.addAudit(entry(1));
  expect(targets(await meta.audit(10))).toEqual(["identity/1"]);
  expect(lost.size).toBe(3);
  await meta.close();
  proxy.closeAllConnections();
  await new Promise((resolve) => proxy.close(resolve));
});

describe("values", () => {
  test("beyond what an item holds are refused with the reason, just below it they are kept", async () => {
    const meta = await opened({ table: newTable() });
    const values = (bytes: number): Record<string, string> => ({ A: "x".repeat(bytes) });
    const version = await meta.addSettings("identity", values(398 * 1_024), "2026-01-01T00:00:00.000Z", "ann");
    expect((await meta.settings("identity", version)).values).toEqual(values(398 * 1_024));
    const large = meta.addSettings("identity", values(410 * 1_024), "2026-01-01T00:00:00.000Z", "ann");
    expect(await codeOf(large)).toBe("too_large");
    await large.catch((error: unknown) => expect(String(error)).toContain("399 KiB"));
    const emoji = meta.addSettings("identity", { A: "é".repeat(250 * 1_024) }, "2026-01-01T00:00:00.000Z", "ann");
    expect(await codeOf(emoji)).toBe("too_large");
    expect(await meta.settingsHistory("identity", 10)).toHaveLength(1);
    expect(meta.degraded()).toBeUndefined();
    await meta.close();
  });

  test("a history longer than one answer of DynamoDB is read to its end", async () => {
    const meta = await opened({ table: newTable() });
    for (let number = 1; number <= 8; number += 1) {
      await meta.addSettings("identity", { N: number, A: "x".repeat(300_000) }, "2026-01-01T00:00:00.000Z", "ann");
    }
    const history = await meta.settingsHistory("identity", 7);
    expect(history.map(({ values }) => values.N)).toEqual([8, 7, 6, 5, 4, 3, 2]);
    await meta.close();
  });

  test("an audit entry too large for an item is kept without what it was about", async () => {
    const meta = await opened({ table: newTable() });
    await meta.addAudit(entry(1, { before: "x".repeat(200_000), after: "y".repeat(200_000) }));
    const [kept] = await meta.audit(1);
    expect(kept).toMatchObject({ target: "identity/1", after: { bytes: 200_002 } });
    await meta.close();
  });

  test("ports by the thousand are restored, read and reserved", async () => {
    const meta = await opened({ table: newTable() });
    const ports = Array.from({ length: 1_000 }, (_, index) => ({
      service: `service-${index}`,
      port: 5_000 + index,
    }));
    await meta.replacePorts(ports);
    expect(await meta.ports()).toEqual(ports);
    expect(await meta.reservePort("next", new Set())).toEqual({ service: "next", port: 6_000, created: true });
    await meta.close();
  }, 60_000);
});

describe("the audit trail", () => {
  test("spans months, newest first, each entry once although it is stored twice", async () => {
    const table = newTable();
    const meta = await opened({ table });
    const month = 31 * 86_400_000;
    for (const back of [5, 3, 1, 0]) {
      await meta.addAudit(entry(back, { at: new Date(Date.now() - back * month).toISOString() }));
    }
    expect(targets(await meta.audit(10))).toEqual(["identity/0", "identity/1", "identity/3", "identity/5"]);
    expect(targets(await meta.audit(2))).toEqual(["identity/0", "identity/1"]);
    await meta.close();
  });

  test("of two replicas is one", async () => {
    const table = newTable();
    const [one, two] = await Promise.all([opened({ table }), opened({ table })]);
    await one.addAudit(entry(1));
    await Bun.sleep(2);
    await two.addAudit(entry(2));
    expect(targets(await two.audit(10))).toContain("identity/2");
    await eventually("both see both", async () => {
      expect(targets(await one.audit(10))).toEqual(["identity/2", "identity/1"]);
    });
    await one.close();
    await two.close();
  });

  test("one data directory is one Atlas's", async () => {
    const table = newTable();
    const dataDir = await newPlace();
    const first = await opened({ table, dataDir });
    expect((await refusal({ table, dataDir })).code).toBe("store_locked");
    await first.close();
    await (await opened({ table, dataDir })).close();
  });
});

/** A server of its own whose data outlive it, for those who kill it. */
async function mortalServer(world: World) {
  const port = await world.port();
  const place = { port, directory: join(world.directory, "tables") };
  let running = await startDynamoDb(world, place);
  return {
    endpoint: running.endpoint,
    kill: async () => {
      running.process.signal("SIGKILL");
      await running.process.exited;
    },
    start: async () => {
      running = await startDynamoDb(world, place);
    },
  };
}

scenario(
  "DynamoDB killed: metadata fails at once and says why, audit waits on disk, and all heals by itself",
  async (world) => {
    const dynamo = await mortalServer(world);
    const table = newTable();
    const dataDir = join(world.directory, "atlas");
    const meta = await opened({ table, dataDir, endpoint: dynamo.endpoint });
    world.defer(() => meta.close());
    const version = await meta.addSettings("identity", { A: 1 }, new Date().toISOString(), "ann");
    await meta.addAudit(entry(0));
    expect(targets(await meta.audit(10))).toEqual(["identity/0"]);

    await dynamo.kill();
    await eventually("it is noticed, with nobody asking", () => expect(meta.degraded()).toContain("does not answer"));
    expect(await codeOf(meta.reservePort("identity", new Set()))).toBe("unavailable");
    const started = performance.now();
    for (let number = 1; number <= 60; number += 1) await meta.addAudit(entry(number));
    expect(await codeOf(meta.addSettings("identity", { A: 2 }, "2026-01-01T00:00:00.000Z", "ann"))).toBe("unavailable");
    expect(await codeOf(meta.audit(10))).toBe("unavailable");
    // nobody waits for what is known to be away
    expect(performance.now() - started).toBeLessThan(500);
    expect(meta.auditBacklog()).toEqual({ waiting: 60, dropped: 0 });
    expect(meta.degraded()).toContain("60 audit entries wait");

    await dynamo.start();
    await eventually("it is well again, with nobody asking", () => expect(meta.degraded()).toBeUndefined());
    await eventually(
      "every entry is there, once and in order",
      async () =>
        expect(targets(await meta.audit(100))).toEqual(
          Array.from({ length: 61 }, (_, index) => `identity/${60 - index}`),
        ),
      // DynamoDB Local syncs each item that it keeps on disk
      60_000,
    );
    expect(meta.auditBacklog()).toEqual({ waiting: 0, dropped: 0 });
    expect(await meta.addSettings("identity", { A: 2 }, "2026-01-01T00:00:00.000Z", "ann")).toBe(version + 1);
  },
  150_000,
);

describe("DynamoDB stopped dead, as behind a network that swallows packets:", () => {
  const stop = (): void => server.process.signal("SIGSTOP");
  const go = (): void => server.process.signal("SIGCONT");

  test("calls end within their deadline, and it heals by itself", async () => {
    const meta = await opened({ table: newTable() });
    stop();
    try {
      const started = performance.now();
      expect(await codeOf(meta.ports())).toBe("unavailable");
      expect(performance.now() - started).toBeLessThan(5_500);
      const later = performance.now();
      await meta.addAudit(entry(1));
      expect(await codeOf(meta.ports())).toBe("unavailable");
      expect(performance.now() - later).toBeLessThan(300);
    } finally {
      go();
    }
    await eventually("it is well again", () => expect(meta.degraded()).toBeUndefined());
    expect(await meta.ports()).toEqual([]);
    expect(targets(await meta.audit(10))).toEqual(["identity/1"]);
    await meta.close();
  }, 30_000);

  test("a spool that is full takes no more, says how many, and the trail tells of the gap", async () => {
    const meta = await opened({ table: newTable(), spoolBytes: 20_000 });
    const codes: (string | undefined)[] = [];
    stop();
    try {
      for (let number = 1; number <= 200; number += 1) codes.push(await codeOf(meta.addAudit(entry(number))));
    } finally {
      go();
    }
    const taken = codes.filter((code) => code === "none").length;
    expect(taken).toBeGreaterThan(50);
    expect(codes.slice(taken)).toEqual(Array.from({ length: 200 - taken }, () => "spool_full"));
    expect(meta.auditBacklog().dropped).toBe(200 - taken);
    expect(meta.degraded()).toContain(`${200 - taken} audit entries are in the log alone`);
    await eventually("what waited is stored", () => expect(meta.auditBacklog().waiting).toBe(0));
    await meta.addAudit(entry(999));
    const trail = await meta.audit(1_000);
    expect(targets(trail).slice(0, 2)).toEqual(["identity/999", "audit"]);
    expect(trail[1]).toMatchObject({ kind: "audit.gap", after: { entries: 200 - taken } });
    expect(trail).toHaveLength(taken + 2);
    expect(meta.degraded()).toBeUndefined();
    await meta.close();
  }, 30_000);

  test("kill -9 with entries on disk loses none of them, and none is there twice", async () => {
    const table = newTable();
    const dataDir = await newPlace();
    const fixture = join(import.meta.dir, "../core/registry/dynamodb-writer.fixture.ts");
    await (await opened({ table, dataDir })).close();
    const acknowledged: string[] = [];
    for (let round = 0; round < 3; round += 1) {
      const child = Bun.spawn([process.execPath, fixture, server.endpoint, table, dataDir, String(round)], {
        stdout: "pipe",
        stderr: "inherit",
        env: process.env,
      });
      const after = 40 + Math.floor(Math.random() * 200);
      let seen = 0;
      let text = "";
      const decoder = new TextDecoder();
      for await (const chunk of child.stdout) {
        text += decoder.decode(chunk, { stream: true });
        const lines = text.split("\n");
        text = lines.pop() ?? "";
        acknowledged.push(...lines);
        // DynamoDB goes in the middle of it, so that entries are in it, on their way and on disk
        if (seen < after / 2 && seen + lines.length >= after / 2) stop();
        seen += lines.length;
        if (seen >= after) child.kill("SIGKILL");
      }
      await child.exited;
      go();
      expect(child.signalCode).toBe("SIGKILL");
    }
    const left = (await readdir(join(dataDir, "audit"))).filter((name) => name.endsWith(".jsonl"));
    expect(left.length).toBeGreaterThan(0);
    const meta = await opened({ table, dataDir });
    const trail = targets(await meta.audit(10_000));
    expect(new Set(trail).size).toBe(trail.length);
    expect(acknowledged.filter((target) => !trail.includes(target))).toEqual([]);
    expect(acknowledged.length).toBeGreaterThan(100);
    await meta.close();
  }, 60_000);
});
