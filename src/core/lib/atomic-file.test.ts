import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeFileAtomic } from "./atomic-file.ts";

let directory = "";
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-atomic-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

test("a file is made, then replaced, with nothing beside it", async () => {
  const path = join(directory, "state.json");
  await writeFileAtomic(path, "one");
  await writeFileAtomic(path, new TextEncoder().encode("two"));
  expect(await readFile(path, "utf8")).toBe("two");
  expect(await readdir(directory)).toEqual(["state.json"]);
});

test("the mode is the one that was asked for, so that a secret is never readable in between", async () => {
  const path = join(directory, "token");
  await writeFileAtomic(path, "secret", { mode: 0o600 });
  expect((await stat(path)).mode & 0o777).toBe(0o600);
});

test("a reader sees the old content or the new one, never a part", async () => {
  const path = join(directory, "big");
  const contents = ["a", "b"].map((letter) => letter.repeat(1_000_000));
  await writeFileAtomic(path, contents[0] ?? "", { durable: false });
  const written = new AbortController();
  const torn: number[] = [];
  const reader = (async () => {
    while (!written.signal.aborted) {
      const text = await readFile(path, "utf8");
      if (!contents.includes(text)) torn.push(text.length);
    }
  })();
  for (let turn = 0; turn < 50; turn += 1) await writeFileAtomic(path, contents[turn % 2] ?? "", { durable: false });
  written.abort();
  await reader;
  expect(torn).toEqual([]);
});

test("writers of the same file at the same moment leave one of their contents, whole", async () => {
  const path = join(directory, "shared");
  const contents = Array.from({ length: 20 }, (_, index) => String(index).repeat(10_000));
  await Promise.all(contents.map((content) => writeFileAtomic(path, content, { durable: false })));
  expect(contents).toContain(await readFile(path, "utf8"));
  expect(await readdir(directory)).toEqual(["shared"]);
});

test("a failure leaves the old file and nothing beside it", async () => {
  // renaming a file over a directory fails after everything was written: the latest moment a failure can come
  const path = join(directory, "taken");
  await mkdir(path);
  await writeFile(join(path, "old"), "old");
  const failure = await writeFileAtomic(path, "new").catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: "EISDIR" });
  expect(await readdir(directory)).toEqual(["taken"]);
  expect(await readFile(join(path, "old"), "utf8")).toBe("old");
});

test("a missing directory is the caller's error, with the system's code", async () => {
  const failure = await writeFileAtomic(join(directory, "nowhere", "file"), "x").catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: "ENOENT" });
});

test("the first failure is told, not that cleaning up failed too", async () => {
  const failure = await writeFileAtomic("/dev/null/file", "x").catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: "ENOTDIR", syscall: "open" });
});
