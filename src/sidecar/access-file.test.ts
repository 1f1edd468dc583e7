import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtemp, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fakeClock } from "../core/lib/clock.ts";
import { silentLogger } from "../core/lib/logger.ts";
import type { AccessRecord } from "../core/haproxy/access-log.ts";
import { openAccessFile } from "./access-file.ts";

let directory = "";
let path = "";
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-"));
  path = join(directory, "access.log");
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const record = (requestId: string): AccessRecord => ({
  endedAt: 1_700_000_000_000,
  requestId,
  service: "identity",
  instance: "host1:5000",
  method: "GET",
  path: "/teams",
  status: 200,
  retries: 1,
  redispatched: true,
  termination: "--",
  timings: { queue: 0, connect: 1, response: 2, total: 3 },
  bytesSent: 100,
  bytesReceived: 50,
});
const ids = async (file: string): Promise<unknown[]> =>
  (await readFile(file, "utf8"))
    .trimEnd()
    .split("\n")
    .map((line) => (JSON.parse(line) as Record<string, unknown>).requestId);

test("requests become lines of JSON, soon", async () => {
  const clock = fakeClock();
  const file = openAccessFile({ path, clock, logger: silentLogger });
  file.add(record("a"));
  file.add(record("b"));
  await clock.advance(100);
  const [first] = (await readFile(path, "utf8")).split("\n");
  expect(JSON.parse(first ?? "")).toEqual({
    time: "2023-11-14T22:13:20.000Z",
    requestId: "a",
    service: "identity",
    instance: "host1:5000",
    method: "GET",
    path: "/teams",
    status: 200,
    retries: 1,
    redispatched: true,
    termination: "--",
    bytesSent: 100,
    bytesReceived: 50,
    queueMs: 0,
    connectMs: 1,
    responseMs: 2,
    totalMs: 3,
  });
  expect(await ids(path)).toEqual(["a", "b"]);
  file.close();
  expect(clock.pending).toBe(0);
});

test("it appends to what is there, and keeps two files of bounded size", async () => {
  const clock = fakeClock();
  const options = { path, clock, logger: silentLogger, maxBytes: 1_000 };
  for (let round = 0; round < 10; round += 1) {
    const file = openAccessFile(options);
    file.add(record(`${round}`));
    file.close();
  }
  expect((await readdir(directory)).sort()).toEqual(["access.log", "access.log.1"]);
  expect([...(await ids(`${path}.1`)), ...(await ids(path))].slice(-3)).toEqual(["7", "8", "9"]);
  for (const name of await readdir(directory)) expect((await stat(join(directory, name))).size).toBeLessThan(1_000);
});

test("a file that was moved away is followed by a new one", async () => {
  const clock = fakeClock();
  const file = openAccessFile({ path, clock, logger: silentLogger });
  file.add(record("a"));
  await clock.advance(100);
  await rename(path, `${path}.moved`);
  file.add(record("b"));
  await clock.advance(100);
  expect(await ids(path)).toEqual(["b"]);
  file.close();
});

test("a disk that refuses loses lines and nothing else", async () => {
  const clock = fakeClock();
  const file = openAccessFile({ path: join(directory, "missing/access.log"), clock, logger: silentLogger });
  file.add(record("a"));
  await clock.advance(100);
  file.add(record("b"));
  file.close();
  expect(await readdir(directory)).toEqual([]);
});
