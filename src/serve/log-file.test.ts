import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtemp, readdir, readFile, rename, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fakeClock, systemClock } from "../core/lib/clock.ts";
import { LineSink, LogOutput, type OutputTarget } from "./line-sink.ts";
import { LogFile } from "./log-file.ts";

let directory = "";
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-"));
});
afterEach(() => rm(directory, { recursive: true }));

const failed: unknown[] = [];
const sinkOf = (target: OutputTarget, clock = systemClock): LineSink =>
  new LineSink([new LogOutput(target, (error) => failed.push(error))], clock);

/** Every line of the log and of what was put aside. */
async function allLines(): Promise<readonly string[]> {
  const names = (await readdir(directory)).filter((name) => name.startsWith("a.log") && !name.endsWith(".lock"));
  const texts = await Promise.all(names.map((name) => readFile(join(directory, name), "utf8")));
  return texts.flatMap((text) => text.split("\n").slice(0, -1));
}

test("two writers of one file rotate it a hundred times and lose or tear no line", async () => {
  const path = join(directory, "a.log");
  const files = [0, 1].map(() => new LogFile({ path, maxBytes: 2_000, keep: 1_000 }, systemClock));
  const sinks = files.map((file) => sinkOf(file));
  const wanted: string[] = [];
  for (let round = 0; round < 150; round += 1) {
    for (const [writer, sink] of sinks.entries()) {
      for (let line = 0; line < 20; line += 1) {
        const text = JSON.stringify({ writer, round, line, pad: "x".repeat(60) });
        wanted.push(text);
        sink.write(`${text}\n`);
      }
    }
    await Promise.all(sinks.map((sink) => sink.flush()));
  }
  expect((await readdir(directory)).length).toBeGreaterThan(100);
  // compared as one value: a difference of thousands of lines helps nobody
  expect(Bun.hash((await allLines()).toSorted().join("\n"))).toBe(Bun.hash(wanted.toSorted().join("\n")));
  expect(failed).toEqual([]);
});

test("only the newest put-aside files stay", async () => {
  const clock = fakeClock();
  const file = new LogFile({ path: join(directory, "a.log"), maxBytes: 10, keep: 2 }, clock);
  for (let round = 0; round < 5; round += 1) {
    await clock.advance(1);
    await file.write(Buffer.from(`line of round ${round}\n`));
  }
  expect((await allLines()).toSorted()).toEqual(["line of round 3", "line of round 4"]);
  file.close();
});

test("after somebody moved the file, reopening goes on in a new one; without it the next write finds out", async () => {
  const path = join(directory, "a.log");
  const file = new LogFile({ path }, systemClock);
  await file.write(Buffer.from("one\n"));
  await rename(path, `${path}.moved`);
  file.reopen();
  await file.write(Buffer.from("two\n"));
  await rename(path, `${path}.again`);
  await file.write(Buffer.from("three\n"));
  file.close();
  expect(
    await Promise.all(["a.log.moved", "a.log.again", "a.log"].map((name) => readFile(join(directory, name), "utf8"))),
  ).toEqual(["one\n", "two\n", "three\n"]);
});

test("the lock of another process keeps the file in place, until it is old", async () => {
  const path = join(directory, "a.log");
  const file = new LogFile({ path, maxBytes: 5 }, systemClock);
  await writeFile(`${path}.lock`, "1\n");
  await file.write(Buffer.from("longer than five\n"));
  expect(await readdir(directory)).toEqual(["a.log", "a.log.lock"]);
  const past = new Date(Date.now() - 11_000);
  await utimes(`${path}.lock`, past, past);
  await file.write(Buffer.from("more\n"));
  expect(await readdir(directory)).toHaveLength(2);
  expect(await readdir(directory)).not.toContain("a.log.lock");
  file.close();
});

test("a place that stalls drops lines, counts them, and holds up no other", async () => {
  const clock = fakeClock();
  const written: string[] = [];
  let release: () => void = () => undefined;
  const stalled = new LogOutput(
    {
      write: (bytes) =>
        new Promise((resolve) => {
          release = () => {
            written.push(Buffer.from(bytes).toString());
            resolve();
          };
        }),
      writeSync: () => undefined,
    },
    (error) => failed.push(error),
  );
  let healthy = 0;
  const fine = new LogOutput(
    { write: async (bytes) => void (healthy += bytes.length), writeSync: () => undefined },
    () => undefined,
  );
  const sink = new LineSink([stalled, fine], clock);
  const line = `${"x".repeat(1023)}\n`;
  for (let count = 0; count < 10_240; count += 1) {
    sink.write(line);
    if (count % 1_024 === 1_023) await clock.advance(100);
  }
  expect(healthy).toBe(10_240 * 1_024);
  while (!written.at(-1)?.includes("dropped")) {
    release();
    await clock.advance(0);
  }
  expect(written.at(-1)).toContain("2048 log lines were dropped");
});

test("lines leave within 50 ms, and at once when a process says its last words", async () => {
  const clock = fakeClock();
  const written: string[] = [];
  const take = (bytes: Uint8Array): void => void written.push(Buffer.from(bytes).toString());
  const sink = sinkOf({ write: async (bytes) => take(bytes), writeSync: take }, clock);
  sink.write("a\n");
  await clock.advance(49);
  expect(written).toEqual([]);
  await clock.advance(1);
  sink.write("b\n");
  sink.flushSync();
  expect(written).toEqual(["a\n", "b\n"]);
});

test("a directory that was removed is made again", async () => {
  const path = join(directory, "log/a.log");
  const file = new LogFile({ path }, systemClock);
  await rm(join(directory, "log"), { recursive: true });
  await file.write(Buffer.from("a line\n"));
  file.close();
  expect(await readFile(path, "utf8")).toBe("a line\n");
});

test("a pipe that is full is waited for, and costs no line", async () => {
  // 1 MB through a pipe of 64 KB that does not block, as Bun's standard output does not
  const line = new URL("line-sink.ts", import.meta.url).pathname;
  const script = `
    const { descriptorTarget } = await import(${JSON.stringify(line)});
    process.stdout.on("error", () => undefined);
    await descriptorTarget(1).write(Buffer.alloc(1_000_000, "x"));`;
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "pipe" });
  const reader = child.stdout.getReader();
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  expect([size, await new Response(child.stderr).text(), await child.exited]).toEqual([1_000_000, "", 0]);
});
