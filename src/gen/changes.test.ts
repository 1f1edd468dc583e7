import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compare, formatDiff, formatTree } from "./changes.ts";

let directory = "";
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-changes-"));
});
afterEach(() => rm(directory, { recursive: true }));

const files = [
  { path: "a/new.txt", text: "fresh\n", executable: false },
  { path: "changed.txt", text: "one\n2\nthree\n", executable: false },
  { path: "same.txt", text: "same\n", executable: false },
];

test("the diff turns what is there into what was generated, as git reads it", async () => {
  await writeFile(join(directory, "changed.txt"), "one\ntwo\nthree\n");
  await writeFile(join(directory, "same.txt"), "same\n");
  const changes = await compare(directory, files);
  expect(changes.map(({ kind }) => kind)).toEqual(["new", "changed", "same"]);
  const diff = formatDiff(changes);
  expect(diff).toContain("-two\n+2\n");
  expect(diff).not.toContain("same");

  await writeFile(join(directory, "the.diff"), diff);
  const applied = Bun.spawnSync(["git", "apply", "the.diff"], { cwd: directory, stderr: "pipe" });
  expect(applied.stderr.toString()).toBe("");
  for (const { path, text } of files) expect(await readFile(join(directory, path), "utf8")).toBe(text);
});

test("the tree shows folders and what becomes of each file", async () => {
  await writeFile(join(directory, "changed.txt"), "old\n");
  await writeFile(join(directory, "same.txt"), "same\n");
  expect(formatTree("./x/", await compare(directory, files))).toBe(
    ["./x/", "├── a/", "│   └── new.txt", "├── changed.txt  (changed)", "└── same.txt  (same)", ""].join("\n"),
  );
});

test("a directory where a file should go is in the way", async () => {
  await mkdir(join(directory, "same.txt"));
  expect(compare(directory, files)).rejects.toMatchObject({ code: "exists" });
});
