import { Database } from "bun:sqlite";
import { afterEach, describe, expect, test } from "bun:test";
import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fakeClock } from "../lib/clock.ts";
import { errorCode } from "../lib/errors.ts";
import { registrationFromPut } from "../model/instance.ts";
import { defaultDefinition } from "../model/service.ts";
import { describeStoreContract, type StoreUnderTest } from "./contract.ts";
import { SqliteFile } from "./sqlite-file.ts";
import { SqliteLive } from "./sqlite-live.ts";
import { SqliteMeta } from "./sqlite-meta.ts";
import { MIGRATIONS, migrate } from "./sqlite-schema.ts";
import { createSqliteStores } from "./sqlite.ts";
import type { Stores } from "./stores.ts";

describeStoreContract("SQLite", async () => {
  const directory = await mkdtemp(join(tmpdir(), "smartstack-store-"));
  const clock = fakeClock();
  const open = async (): Promise<StoreUnderTest> => {
    const stores = createSqliteStores({ directory, realm: "local", clock });
    await stores.live.open();
    await stores.meta.open();
    return {
      ...stores,
      async reopen() {
        await stores.live.close();
        return open();
      },
      async advance(ms) {
        await clock.advance(ms);
        // the transaction that a timer asked for
        await new Promise((resolve) => setImmediate(resolve));
      },
      async dispose() {
        await stores.live.close();
        await rm(directory, { recursive: true, force: true });
      },
    };
  };
  return open();
});

const cleanups: (() => Promise<unknown> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function temporaryDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "smartstack-store-"));
  cleanups.push(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

async function opened(directory: string, realm = "local"): Promise<Stores> {
  const stores = createSqliteStores({ directory, realm });
  await stores.live.open();
  cleanups.push(() => stores.live.close());
  return stores;
}

async function refusal(directory: string, realm = "local"): Promise<{ code: string | undefined; message: string }> {
  try {
    await opened(directory, realm);
  } catch (error) {
    return { code: errorCode(error), message: String(error) };
  }
  throw new Error("this should have been refused");
}

describe("the file of the embedded store", () => {
  test("one Atlas at a time; the next may come when the first is gone", async () => {
    const directory = await temporaryDirectory();
    const first = await opened(directory);
    const { code, message } = await refusal(directory);
    expect(code).toBe("store_locked");
    expect(message).toContain(directory);
    await first.live.close();
    await opened(directory);
  });

  test("another process is refused as well", async () => {
    const directory = await temporaryDirectory();
    await opened(directory);
    const child = Bun.spawnSync([process.execPath, join(import.meta.dir, "sqlite-writer.fixture.ts"), directory]);
    expect(child.stderr.toString()).toContain("in use by another Atlas");
    expect(child.exitCode).toBe(1);
  });

  test("a directory that cannot be used is named", async () => {
    const directory = await temporaryDirectory();
    await writeFile(join(directory, "file"), "");
    const { code, message } = await refusal(join(directory, "file"));
    expect(code).toBe("store_unreadable");
    expect(message).toContain(join(directory, "file"));
  });

  test("a file that is no database, or another program's, is left alone", async () => {
    const directory = await temporaryDirectory();
    await writeFile(join(directory, "atlas.db"), "this is a letter, not a database\n".repeat(100));
    expect((await refusal(directory)).code).toBe("store_unreadable");

    const other = await temporaryDirectory();
    const db = new Database(join(other, "atlas.db"));
    db.run("CREATE TABLE songs (name TEXT)");
    db.close();
    expect((await refusal(other)).code).toBe("store_foreign");
    const again = new Database(join(other, "atlas.db"));
    expect(again.query("SELECT name FROM sqlite_schema").all()).toEqual([{ name: "songs" }]);
    again.close();
  });

  test("a row that is no registry's is told, not guessed", async () => {
    const directory = await temporaryDirectory();
    await (await opened(directory)).live.close();
    const db = new Database(join(directory, "atlas.db"));
    db.run("INSERT INTO instances VALUES ('identity', 'a', 1, '{\"port\": 0}')");
    db.close();
    expect((await refusal(directory)).code).toBe("store_unreadable");
  });

  test("another realm's data is refused", async () => {
    const directory = await temporaryDirectory();
    await (await opened(directory, "prod")).live.close();
    const { code, message } = await refusal(directory, "test");
    expect(code).toBe("store_realm");
    expect(message).toContain("prod");
    await opened(directory, "prod");
  });

  test("a file of a newer version is refused", async () => {
    const directory = await temporaryDirectory();
    await (await opened(directory)).live.close();
    const db = new Database(join(directory, "atlas.db"));
    db.run("PRAGMA user_version = 99");
    db.close();
    expect((await refusal(directory)).code).toBe("store_newer");
  });

  test("a file of every earlier version is brought to this one, with all that it holds", async () => {
    for (let version = 1; version < MIGRATIONS.length; version += 1) {
      const directory = await temporaryDirectory();
      const old = new Database(join(directory, "atlas.db"), { create: true });
      migrate(old, MIGRATIONS.slice(0, version), "atlas.db");
      const registration = registrationFromPut("identity", "a", { port: 5000 });
      old.run("INSERT INTO facts VALUES ('realm', 'local'), ('generation', 7), ('revision', 12)");
      old.query("INSERT INTO instances VALUES ('identity', 'a', 0, ?)").run(JSON.stringify(registration));
      old.run("INSERT INTO instances VALUES ('identity', 'b', 0, NULL)");
      old.run("INSERT INTO definitions VALUES ('identity', 1)");
      old
        .query("INSERT INTO definition_versions VALUES ('identity', 1, ?, NULL)")
        .run(JSON.stringify(defaultDefinition));
      old.run("INSERT INTO settings VALUES ('identity', 1)");
      old.run(`INSERT INTO settings_versions VALUES ('identity', 1, '{"A":1}', '2026-01-01', 'ann')`);
      old.run("INSERT INTO ports VALUES ('identity', 5000)");
      old.run(
        "INSERT INTO audit VALUES (1, '2026-01-01', 'ann', '::1', 'instance.put', 'identity/a', NULL, 'null', '1')",
      );
      old.close();
      const { live, meta } = await opened(directory);
      const { generation, revision, instances } = live.state();
      expect([generation, revision, [...instances.values()]]).toEqual([7, 12, [{ ...registration, enabled: false }]]);
      expect(live.away()).toEqual([{ service: "identity", instance: "b" }]);
      expect((await meta.definition("identity", 1)).definition).toEqual(defaultDefinition);
      expect((await meta.settings("identity", 1)).values).toEqual({ A: 1 });
      expect(await meta.ports()).toEqual([{ service: "identity", port: 5000 }]);
      expect(await meta.audit(10)).toHaveLength(1);
      await live.close();
      const now = new Database(join(directory, "atlas.db"));
      expect(now.query("PRAGMA user_version").get()).toEqual({ user_version: MIGRATIONS.length });
      now.close();
    }
    expect(MIGRATIONS.length).toBeGreaterThan(1);
  });

  test("migrations run once, in order, and all or none", () => {
    const db = new Database(":memory:");
    const one = "CREATE TABLE a (x)";
    migrate(db, [one], "x.db");
    migrate(db, [one, "ALTER TABLE a ADD COLUMN y; CREATE TABLE b (z)"], "x.db");
    migrate(db, [one, "ALTER TABLE a ADD COLUMN y; CREATE TABLE b (z)"], "x.db");
    expect(db.query("SELECT name FROM sqlite_schema ORDER BY name").all()).toEqual([{ name: "a" }, { name: "b" }]);
    expect(() => migrate(db, [one, "", "CREATE TABLE c (x)", "nonsense"], "x.db")).toThrow();
    expect(db.query("PRAGMA user_version").get()).toEqual({ user_version: 2 });
    expect(db.query("SELECT name FROM sqlite_schema ORDER BY name").all()).toHaveLength(2);
    db.close();
  });

  test("a write that the disk refuses fails whole and says so, and the next one works", async () => {
    const directory = await temporaryDirectory();
    const file = new SqliteFile(directory);
    const live = new SqliteLive({ file, realm: "local", clock: fakeClock() });
    const meta = new SqliteMeta(file);
    await live.open();
    cleanups.push(() => live.close());
    const version = await meta.addDefinition("identity", { definition: defaultDefinition, published: undefined });
    await live.setDefinition("identity", version, undefined);
    const put = (name: string): Promise<unknown> =>
      live.updateInstance("identity", name, () => ({
        kind: "put",
        enabled: true,
        registration: registrationFromPut("identity", name, { port: 5000 }),
      }));
    const before = live.state();
    // as a full disk: the file may not grow
    file.read((db) => db.run("PRAGMA max_page_count = 1"));
    const results = await Promise.allSettled([
      put("a"),
      meta.addSettings("identity", { A: "x".repeat(1_000_000) }, "", ""),
    ]);
    expect(results.map((result) => result.status === "rejected" && errorCode(result.reason))).toEqual([
      "unavailable",
      "unavailable",
    ]);
    expect(live.state()).toBe(before);
    expect(live.degraded()).toContain("cannot write");
    file.read((db) => db.run("PRAGMA max_page_count = 1000000"));
    await put("a");
    expect(live.state().revision).toBe(before.revision + 1);
    expect(live.degraded()).toBeUndefined();
    await live.close();
    expect([...(await opened(directory)).live.state().instances.keys()]).toEqual(["identity/a"]);
  });

  test.each(["deleted", "replaced", "without its log"])(
    "a file that is %s under us takes no more writes",
    async (how) => {
      const directory = await temporaryDirectory();
      const { live, meta } = await opened(directory);
      await meta.reservePort("identity", new Set());
      const path = join(directory, "atlas.db");
      if (how === "deleted") await rm(directory, { recursive: true });
      if (how === "replaced") {
        await writeFile(`${path}.new`, "");
        await rename(`${path}.new`, path);
      }
      if (how === "without its log") await rm(`${path}-wal`);
      const refused: unknown = await meta.reservePort("billing", new Set()).catch((error: unknown) => error);
      expect(errorCode(refused)).toBe("unavailable");
      expect(refused).toMatchObject({ hint: expect.stringContaining("restart Atlas") });
      expect(live.degraded()).toContain("deleted, moved or replaced");
      expect(await meta.ports()).toEqual([{ service: "identity", port: 5000 }]);
    },
  );

  test("what SQLite cannot read is a Fault that says so", async () => {
    const file = new SqliteFile(await temporaryDirectory());
    file.open();
    cleanups.push(() => file.close());
    expect(() => file.read((db) => db.query("SELECT * FROM nothing").all())).toThrow("cannot be read");
  });

  test("kill -9 at any moment loses no acknowledged write", async () => {
    const directory = await temporaryDirectory();
    const acknowledged = new Set<string>();
    for (let round = 0; round < 5; round += 1) {
      const child = Bun.spawn(
        [process.execPath, join(import.meta.dir, "sqlite-writer.fixture.ts"), directory, String(round)],
        { stdout: "pipe", stderr: "inherit" },
      );
      const after = 50 + Math.floor(Math.random() * 200);
      let seen = 0;
      let text = "";
      const decoder = new TextDecoder();
      for await (const chunk of child.stdout) {
        text += decoder.decode(chunk, { stream: true });
        const lines = text.split("\n");
        text = lines.pop() ?? "";
        for (const line of lines) acknowledged.add(line);
        seen += lines.length;
        if (seen >= after) child.kill("SIGKILL");
      }
      await child.exited;
      expect(child.signalCode).toBe("SIGKILL");
      const { live } = await opened(directory);
      const present = live.state().instances;
      expect([...acknowledged].filter((id) => !present.has(id))).toEqual([]);
      await live.close();
    }
    expect(acknowledged.size).toBeGreaterThan(250);
  }, 60_000);
});
