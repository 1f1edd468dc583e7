import { afterEach, describe, expect, test } from "bun:test";
import { appendFile, copyFile, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fakeClock, type FakeClock } from "../lib/clock.ts";
import { errorCode, Fault } from "../lib/errors.ts";
import { silentLogger } from "../lib/logger.ts";
import { AuditSpool, type AuditSpoolOptions } from "./audit-spool.ts";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A store that takes lines, or does not. */
type Store = { away: boolean; readonly stored: string[]; readonly batches: number[] };

type Bench = {
  readonly spool: AuditSpool;
  readonly store: Store;
  readonly clock: FakeClock;
  readonly directory: string;
  readonly files: () => Promise<string[]>;
};

async function spoolOf(more: Partial<AuditSpoolOptions> & { away?: boolean } = {}): Promise<Bench> {
  const { away = false, ...options } = more;
  const directory = options.directory ?? (await mkdtemp(join(tmpdir(), "smartstack-spool-")));
  if (options.directory === undefined) cleanups.push(() => rm(directory, { recursive: true, force: true }));
  const store: Store = { away, stored: [], batches: [] };
  const clock = fakeClock();
  const spool = new AuditSpool({
    directory,
    store: async (lines) => {
      if (store.away) throw new Fault({ code: "unavailable", message: "DynamoDB is away" });
      store.batches.push(lines.length);
      store.stored.push(...lines);
    },
    clock,
    logger: silentLogger,
    ...options,
  });
  spool.open();
  const files = async (): Promise<string[]> => (await readdir(directory)).filter((name) => name.endsWith(".jsonl"));
  return { spool, store, clock, directory, files };
}

/** As kill -9 leaves it: another directory with the same files, since only the end of a process lets go of the lock. */
async function abandon(bench: Bench): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "smartstack-spool-"));
  cleanups.push(() => rm(directory, { recursive: true, force: true }));
  for (const name of await bench.files()) await copyFile(join(bench.directory, name), join(directory, name));
  await bench.clock.advance(0);
  await bench.spool.close();
  return directory;
}

const lines = (from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, index) => JSON.stringify({ number: from + index }));

function fill({ spool }: Bench, from: number, to: number): void {
  for (const line of lines(from, to)) spool.append(line);
}

describe("the audit spool", () => {
  test("stores what was appended, in order, at most 25 at once, and leaves nothing on disk", async () => {
    const bench = await spoolOf();
    fill(bench, 0, 60);
    expect(bench.spool.waiting).toBe(60);
    expect(await bench.spool.flushed(1_000)).toBe(true);
    expect(bench.store.stored).toEqual(lines(0, 60));
    expect(bench.store.batches).toEqual([25, 25, 10]);
    await bench.spool.close();
    expect(await bench.files()).toEqual([]);
  });

  test("keeps lines while the store is away, says so, and stores them in order when it is back", async () => {
    const bench = await spoolOf({ away: true });
    fill(bench, 0, 30);
    // the turns that entries are gathered in
    for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    expect(bench.spool.trouble()).toContain("DynamoDB is away");
    const flushed = bench.spool.flushed(500);
    await bench.clock.advance(500);
    expect(await flushed).toBe(false);
    fill(bench, 30, 40);
    bench.store.away = false;
    await bench.clock.advance(5_000);
    expect(bench.store.stored).toEqual(lines(0, 40));
    expect([bench.spool.waiting, bench.spool.trouble()]).toEqual([0, undefined]);
    await bench.spool.close();
  });

  test("a restart goes on with what an earlier process left, before anything new", async () => {
    const first = await spoolOf({ away: true, segmentBytes: 200 });
    fill(first, 0, 50);
    expect((await first.files()).length).toBeGreaterThan(3);
    const second = await spoolOf({ directory: await abandon(first), segmentBytes: 200 });
    expect(second.spool.waiting).toBe(50);
    fill(second, 50, 60);
    expect(await second.spool.flushed(1_000)).toBe(true);
    expect(second.store.stored).toEqual(lines(0, 60));
    await second.spool.close();
    expect(await second.files()).toEqual([]);
  });

  test("many files of a long outage are read one by one, each line once", async () => {
    const bench = await spoolOf({ away: true, segmentBytes: 500 });
    fill(bench, 0, 400);
    await bench.clock.advance(0);
    bench.store.away = false;
    await bench.clock.advance(3_000);
    fill(bench, 400, 500);
    await bench.clock.advance(0);
    expect(await bench.spool.flushed(1_000)).toBe(true);
    expect(bench.store.stored).toEqual(lines(0, 500));
    await bench.spool.close();
  });

  test("what is appended while a file is stored and another begins is neither lost nor doubled", async () => {
    let release = (): void => undefined;
    const stored: string[] = [];
    const bench = await spoolOf({
      segmentBytes: 100,
      store: async (batch) => {
        await new Promise<void>((resolve) => {
          release = resolve;
        });
        stored.push(...batch);
      },
    });
    fill(bench, 0, 3);
    await bench.clock.advance(0);
    fill(bench, 3, 30);
    for (let turn = 0; turn < 30; turn += 1) {
      release();
      await bench.clock.advance(0);
    }
    expect(stored).toEqual(lines(0, 30));
    expect(bench.spool.waiting).toBe(0);
    await bench.spool.close();
  });

  test("a full one refuses what is new and keeps what it has", async () => {
    const bench = await spoolOf({ away: true, maxBytes: 300, segmentBytes: 100 });
    const codes = lines(0, 40).map((line) => {
      try {
        bench.spool.append(line);
        return "taken";
      } catch (error) {
        return errorCode(error);
      }
    });
    const taken = codes.filter((code) => code === "taken").length;
    expect(codes).toEqual([
      ...Array.from({ length: taken }, () => "taken"),
      ...Array.from({ length: 40 - taken }, () => "spool_full"),
    ]);
    expect([bench.spool.waiting, bench.spool.dropped]).toEqual([taken, 40 - taken]);
    bench.store.away = false;
    await bench.clock.advance(5_000);
    expect(bench.store.stored).toEqual(lines(0, taken));
    fill(bench, 100, 101);
    expect(await bench.spool.flushed(1_000)).toBe(true);
    await bench.spool.close();
  });

  test("half a line that a power cut left spoils no other", async () => {
    const first = await spoolOf({ away: true });
    fill(first, 0, 3);
    const directory = await abandon(first);
    await appendFile(join(directory, (await first.files())[0] ?? ""), '{"number":');
    const second = await spoolOf({ directory });
    fill(second, 3, 4);
    expect(await second.spool.flushed(1_000)).toBe(true);
    // the store is who tells a damaged line
    expect(second.store.stored).toEqual([...lines(0, 3), '{"number":', ...lines(3, 4)]);
    await second.spool.close();
  });

  test("a file that somebody took away is given up, and the rest goes on", async () => {
    const bench = await spoolOf({ away: true, segmentBytes: 100 });
    fill(bench, 0, 40);
    await bench.clock.advance(0);
    const files = (await bench.files()).sort();
    await rm(join(bench.directory, files[1] ?? ""));
    const lost = 40 - (await linesIn(bench));
    bench.store.away = false;
    await bench.clock.advance(5_000);
    expect([bench.spool.waiting, bench.spool.dropped]).toEqual([0, lost]);
    expect(bench.store.stored).toHaveLength(40 - lost);
    await bench.spool.close();
  });

  test("a directory is one process's, and free when that one is gone", async () => {
    const first = await spoolOf();
    const second = spoolOf({ directory: first.directory });
    expect(errorCode(await second.catch((error: unknown) => error))).toBe("store_locked");
    await first.spool.close();
    await (await spoolOf({ directory: first.directory })).spool.close();
  });

  test("a directory that cannot be used is named", async () => {
    const { directory, spool } = await spoolOf();
    await writeFile(join(directory, "file"), "");
    const refused = spoolOf({ directory: join(directory, "file") });
    const fault: unknown = await refused.catch((error: unknown) => error);
    expect(errorCode(fault)).toBe("store_unreadable");
    expect(String(fault)).toContain(join(directory, "file"));
    await spool.close();
  });
});

async function linesIn({ directory, files }: Bench): Promise<number> {
  const texts = await Promise.all((await files()).map((name) => readFile(join(directory, name), "utf8")));
  return texts.join("").split("\n").length - 1;
}
