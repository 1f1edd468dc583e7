import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Environment, runChild } from "./child.ts";
import { commitProject } from "./git.ts";

let directory = "";
let project = "";
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-git-"));
  project = join(directory, "project");
  await mkdir(project);
  await writeFile(join(project, "file"), "1\n");
});
afterEach(() => rm(directory, { recursive: true }));

const { signal } = new AbortController();
/** A machine that nobody has told git anything on. */
const bare = (): Environment => ({ PATH: process.env.PATH, HOME: directory, GIT_CONFIG_NOSYSTEM: "1" });
const commit = (environment: Environment) =>
  commitProject(project, directory, "Generate project", { environment, signal });
const log = async (format: string): Promise<string> =>
  (await runChild(["git", "log", `--format=${format}`], { cwd: project, environment: bare(), signal })).output.trim();

test("the first commit holds every file and is the user's", async () => {
  await writeFile(join(directory, ".gitconfig"), "[user]\n  name = Ann\n  email = ann@example.com\n");
  expect(await commit(bare())).toEqual({ kind: "committed" });
  expect(await log("%an %ae %s")).toBe("Ann ann@example.com Generate project");
  const status = await runChild(["git", "status", "--porcelain"], { cwd: project, environment: bare(), signal });
  expect(status.output).toBe("");
});

test("without an identity the commit is made all the same, and the user is told", async () => {
  await writeFile(join(directory, ".gitconfig"), "[user]\n  useConfigOnly = true\n");
  expect(await commit(bare())).toMatchObject({ kind: "committed", note: expect.stringContaining("user.name") });
  expect(await log("%an")).toBe("smartstack gen");
});

test("a signature that would ask for a passphrase is not asked for", async () => {
  await writeFile(
    join(directory, ".gitconfig"),
    "[user]\n  name = Ann\n  email = a@b.c\n[commit]\n  gpgSign = true\n[gpg]\n  program = /bin/false\n",
  );
  expect(await commit(bare())).toEqual({ kind: "committed" });
});

test("without git, the reason is given", async () => {
  expect(await commit({ ...bare(), PATH: directory })).toEqual({ kind: "skipped", reason: "git is not on PATH" });
});

test("inside somebody's repository no second one is made", async () => {
  await runChild(["git", "init", "--quiet"], { cwd: directory, environment: bare(), signal });
  expect(await commit(bare())).toMatchObject({ kind: "skipped", reason: expect.stringContaining("inside") });
  expect(await Bun.file(join(project, ".git/HEAD")).exists()).toBe(false);
});

test("a hook that refuses the commit is a reason, not a failure", async () => {
  await mkdir(join(directory, "hooks"));
  await writeFile(join(directory, "hooks/pre-commit"), "#!/bin/sh\necho no luck >&2\nexit 1\n", { mode: 0o755 });
  await writeFile(join(directory, ".gitconfig"), `[core]\n  hooksPath = ${directory}/hooks\n`);
  expect(await commit(bare())).toEqual({ kind: "skipped", reason: "git commit: no luck" });
});

test("the variables that git gives its hooks do not lead the commit elsewhere", async () => {
  const outer = join(directory, "outer");
  await mkdir(outer);
  await runChild(["git", "init", "--quiet"], { cwd: outer, environment: bare(), signal });
  const environment = { ...bare(), GIT_DIR: join(outer, ".git"), GIT_INDEX_FILE: join(outer, ".git/index") };
  expect((await commit(environment)).kind).toBe("committed");
  expect(await log("%s")).toBe("Generate project");
});
