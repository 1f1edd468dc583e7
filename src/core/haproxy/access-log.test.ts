import { afterAll, expect, test } from "bun:test";
import { closeSync, mkdtempSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fakeClock } from "../lib/clock.ts";
import { type AccessRecord, openAccessLog, parseAccessLine } from "./access-log.ts";
import { openPipeForWriting } from "./pipe.ts";

const directory = mkdtempSync(join(tmpdir(), "smartstack-log-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const line = (id: string, more: Record<string, unknown> = {}): string =>
  JSON.stringify({
    end: 1_700_000_000_000,
    id,
    service: "identity",
    instance: "_::1_:5000",
    method: "GET",
    path: "/teams",
    status: 200,
    state: "--",
    retries: "0",
    queue: 0,
    connect: 1,
    response: 2,
    total: 3,
    sent: "140",
    received: "350",
    ...more,
  });

test("a line becomes a record", () => {
  expect(parseAccessLine(line("r1", { retries: "+2" }))).toEqual({
    endedAt: 1_700_000_000_000,
    requestId: "r1",
    service: "identity",
    instance: "[::1]:5000",
    method: "GET",
    path: "/teams",
    status: 200,
    retries: 2,
    redispatched: true,
    termination: "--",
    timings: { queue: 0, connect: 1, response: 2, total: 3 },
    bytesSent: 140,
    bytesReceived: 350,
  });
  expect(parseAccessLine(line("-", { service: "-", instance: "<NOSRV>" }))).toMatchObject({
    requestId: undefined,
    service: undefined,
    instance: undefined,
  });
  expect(parseAccessLine(line("r1").slice(0, 50))).toBeUndefined();
  expect(parseAccessLine('{"else":1}')).toBeUndefined();
});

test("lines are read as they come, in pieces too, and what is no record is a notice", async () => {
  const path = join(directory, "pieces");
  const clock = fakeClock();
  const records: AccessRecord[] = [];
  const notices: string[] = [];
  const writer = openPipeForWriting(path);
  const log = openAccessLog({
    path,
    clock,
    onRecord: (record) => records.push(record),
    onNotice: (text) => notices.push(text),
  });
  const text = line("r1");
  writeSync(writer, text.slice(0, 30));
  await clock.advance(200);
  expect(records).toEqual([]);
  writeSync(writer, `${text.slice(30)}\nServer a/b is DOWN, reason: x\n${line("r2")}\n${line("r3").slice(0, 9)}`);
  await clock.advance(200);
  expect(records.map(({ requestId }) => requestId)).toEqual(["r1", "r2"]);
  expect(notices).toEqual(["Server a/b is DOWN, reason: x"]);
  log.close();
  expect(clock.pending).toBe(0);
  closeSync(writer);
});

test("without a reader the pipe fills and then refuses; the next reader gets what is in it", async () => {
  const path = join(directory, "paused");
  const clock = fakeClock();
  const writer = openPipeForWriting(path);
  let written = 0;
  const write = (): boolean => {
    try {
      written += Number(writeSync(writer, `${line(`r${written}`)}\n`) > 0);
      return true;
    } catch (error) {
      // as HAProxy is told when it would have to wait
      expect(error).toMatchObject({ code: "EAGAIN" });
      return false;
    }
  };
  while (write());
  expect(written).toBeGreaterThan(100);
  const records: AccessRecord[] = [];
  const log = openAccessLog({ path, clock, onRecord: (record) => records.push(record) });
  await clock.advance(1_000);
  expect(records.length).toBe(written);
  // a reader also makes room for a burst
  const before = written;
  while (write());
  expect(written - before).toBeGreaterThan(2_000);
  await clock.advance(1_000);
  expect(records.length).toBe(written);
  log.close();
  closeSync(writer);
});

test("a pipe that cannot be opened is told", () => {
  expect(() => openAccessLog({ path: join(directory, "none"), onRecord: () => undefined })).toThrow("none");
});
