import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, utimes, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { moveFiles, moveIntoPlace, stage, writeFiles } from "./staging.ts";

let directory = "";
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-staging-"));
});
afterEach(() => rm(directory, { recursive: true }));

const file = (path: string, text: string, executable = false) => ({ path, text, executable });

test("a project is made beside its place and moved there whole", async () => {
  const staging = await stage(directory, "identity");
  await writeFiles(staging.project, [file("a/b/c.txt", "1"), file("run", "#!/bin/sh\n", true)]);
  expect(await readdir(directory)).toHaveLength(1);
  await moveIntoPlace(staging.project, join(directory, "identity"), "/");
  await staging.remove();
  expect(await readdir(directory)).toEqual(["identity"]);
  expect(await readFile(join(directory, "identity/a/b/c.txt"), "utf8")).toBe("1");
  expect((await stat(join(directory, "identity/run"))).mode & 0o111).not.toBe(0);
});

test("a run that fails leaves nothing, not even the parents it made", async () => {
  await mkdir(join(directory, "theirs"));
  const staging = await stage(join(directory, "theirs/mine/too"), "identity");
  await writeFiles(staging.project, [file("a/b", "1")]);
  await staging.remove();
  expect(await readdir(join(directory, "theirs"))).toEqual([]);
});

test("what a dead run left is removed; a live run's, and another host's young one, are not", async () => {
  const start = (await readFile("/proc/self/stat", "utf8")).split(") ")[1]?.split(" ")[19] ?? "";
  const [dead, reused, alive, foreign, old, other] = [
    `.smartstack-gen-${hostname()}-${Bun.spawnSync(["true"]).pid}-0-aaaaaa`,
    // the number lives, but belongs to a later process
    `.smartstack-gen-${hostname()}-${process.pid}-1-aaaaaa`,
    `.smartstack-gen-${hostname()}-${process.pid}-${start}-aaaaaa`,
    ".smartstack-gen-elsewhere-1-1-aaaaaa",
    ".smartstack-gen-elsewhere-2-1-aaaaaa",
    ".smartstack",
  ] as const;
  for (const name of [dead, reused, alive, foreign, old, other]) {
    await mkdir(join(directory, name));
    await writeFile(join(directory, name, "file"), "");
  }
  await utimes(join(directory, old), new Date(0), new Date(0));
  const staging = await stage(directory, "identity");
  await staging.remove();
  expect((await readdir(directory)).sort()).toEqual([other, alive, foreign].sort());
});

test("what appeared at the place meanwhile is untouched", async () => {
  const staging = await stage(directory, "identity");
  const target = join(directory, "identity");
  await mkdir(target);
  await writeFile(join(target, "theirs"), "1");
  expect(moveIntoPlace(staging.project, target, "/")).rejects.toMatchObject({ code: "exists" });
  await staging.remove();
  expect(await readdir(target)).toEqual(["theirs"]);
});

test("the caller's own empty directory is filled, not replaced", async () => {
  const target = join(directory, "here");
  await mkdir(target);
  const { ino } = await stat(target);
  const staging = await stage(directory, "here");
  await writeFiles(staging.project, [file("a/b", "1"), file("c", "2")]);
  await moveIntoPlace(staging.project, target, target);
  await staging.remove();
  expect((await stat(target)).ino).toBe(ino);
  expect((await readdir(target)).sort()).toEqual(["a", "c"]);
});

test("only the named files of an existing project are replaced", async () => {
  const target = join(directory, "identity");
  await mkdir(target);
  await writeFile(join(target, "kept"), "theirs");
  await writeFile(join(target, "replaced"), "old");
  const staging = await stage(directory, "identity");
  await writeFiles(staging.project, [file("replaced", "new"), file("deep/added", "new"), file("kept", "ours")]);
  await moveFiles(staging.project, target, ["replaced", "deep/added"]);
  await staging.remove();
  expect(await readFile(join(target, "kept"), "utf8")).toBe("theirs");
  expect(await readFile(join(target, "replaced"), "utf8")).toBe("new");
  expect(await readFile(join(target, "deep/added"), "utf8")).toBe("new");
});

test("a file that cannot be replaced is named, with how many were", async () => {
  const target = join(directory, "identity");
  await mkdir(target);
  await writeFile(join(target, "deep"), "theirs, and no directory");
  const staging = await stage(directory, "identity");
  await writeFiles(staging.project, [file("a", "new"), file("deep/added", "new")]);
  expect(moveFiles(staging.project, target, ["a", "deep/added"])).rejects.toMatchObject({
    code: "unwritable",
    message: "deep/added cannot be replaced; 1 of 2 files were",
  });
  await staging.remove();
});

test("a place that nothing can be renamed to is named", async () => {
  const staging = await stage(directory, "identity");
  // another file system, as a mount point is
  expect(moveIntoPlace(staging.project, "/proc/identity", "/")).rejects.toMatchObject({
    code: "unwritable",
    message: "the finished project cannot be moved to /proc/identity",
  });
  await staging.remove();
});

test("a place that cannot be written is named", async () => {
  await writeFile(join(directory, "file"), "");
  expect(stage(join(directory, "file/below"), "x")).rejects.toMatchObject({
    code: "unwritable",
    message: `cannot write in ${directory}/file/below`,
  });
  await symlink("/proc", join(directory, "proc"));
  expect(stage(join(directory, "proc"), "x")).rejects.toMatchObject({ code: "unwritable" });
});
