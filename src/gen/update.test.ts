import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../core/lib/clock.ts";
import { Fault } from "../core/lib/errors.ts";
import { VERSION } from "../core/lib/version.ts";
import { findTemplate } from "./catalog.ts";
import { placeholders } from "./generate.ts";
import { commitMessage } from "./git.ts";
import { writeFiles } from "./staging.ts";
import { render } from "./template.ts";
import { update, type UpdateConfig } from "./update.ts";

const BRANCH = `smartstack-update-${VERSION}`;

let directory = "";
let project = "";
let printed: string[] = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-update-"));
  project = join(directory, "identity");
  printed = [];
  await mkdir(project);
  // tests and start always go well here; whether they do is generate.test.ts's
  await writeFile(
    join(directory, "stand-in.ts"),
    `if (process.argv[2] === "test") console.log(" 6 pass");
     else {
       const port = Number(process.argv[process.argv.indexOf("--port") + 1]);
       Bun.serve({ port, hostname: "127.0.0.1", fetch: () => new Response() });
       process.on("SIGTERM", () => process.exit(0));
     }`,
  );
});
afterEach(() => rm(directory, { recursive: true }));

const environment = (): Record<string, string | undefined> => ({
  PATH: process.env.PATH,
  HOME: directory,
  GIT_CONFIG_NOSYSTEM: "1",
  GIT_AUTHOR_NAME: "Ann",
  GIT_AUTHOR_EMAIL: "ann@example.com",
  GIT_COMMITTER_NAME: "Ann",
  GIT_COMMITTER_EMAIL: "ann@example.com",
});
const git = (...args: string[]): string => {
  const { stdout, stderr, exitCode } = Bun.spawnSync(["git", ...args], {
    cwd: project,
    env: environment(),
    stderr: "pipe",
  });
  if (exitCode !== 0) throw new Error(`git ${args.join(" ")}: ${stderr.toString()}`);
  return stdout.toString().trim();
};
const read = (path: string): Promise<string> => readFile(join(project, path), "utf8");
const edit = async (path: string, from: string, to: string): Promise<void> => {
  const before = await read(path);
  if (!before.includes(from)) throw new Error(`${path} has no "${from}"`);
  await writeFile(join(project, path), before.replace(from, to));
};
const commit = (message: string): void => {
  git("add", "--all");
  git("commit", "--quiet", "-m", message);
};

/** A project as an older template made it: today's, with `age` undone. */
async function oldProject(age: () => Promise<void>): Promise<void> {
  await writeFiles(project, render(await findTemplate("typescript", "/"), placeholders("identity", 5004)));
  await age();
  git("init", "--quiet", "--initial-branch", "main");
  commit(commitMessage("Generate identity", "typescript"));
}
const run = (config: Partial<UpdateConfig> = {}): Promise<void> =>
  update(
    { directory: project, workingDirectory: directory, template: undefined, ...config },
    {
      clock: systemClock,
      program: [process.execPath, join(directory, "stand-in.ts")],
      environment: environment(),
      signal: new AbortController().signal,
      print: (text) => printed.push(text),
    },
  );
const failure = async (work: Promise<void>): Promise<Fault> => {
  try {
    await work;
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
  throw new Error("it did not fail");
};

test("what the template changed and what the owners changed come together, on a branch", async () => {
  await oldProject(async () => {
    await edit("README.md", "Nothing needs installing", "Install everything");
    await writeFile(join(project, "gone.txt"), "the newer template has this no more\n");
    await rm(join(project, ".ci/run"));
  });
  await edit("service.ts", "in memory, so that", "in memory, for us, so that");
  await edit("README.md", "# identity\n", "# identity, ours\n");
  await writeFile(join(project, "ours.ts"), "export {};\n");
  commit("Make it ours");

  await run();
  expect(git("branch", "--show-current")).toBe(BRANCH);
  expect(git("status", "--porcelain")).toBe("");
  const readme = await read("README.md");
  expect(readme).toContain("# identity, ours\n");
  expect(readme).toContain("Nothing needs installing");
  expect(await read("service.ts")).toContain("for us");
  expect(git("ls-files").split("\n")).toContain(".ci/run");
  expect(git("ls-files").split("\n")).not.toContain("gone.txt");
  expect(git("ls-files").split("\n")).toContain("ours.ts");
  expect(printed.at(-1)).toContain(`Next:  git switch main && git merge ${BRANCH}`);
  // nothing happened to where the owners were
  expect(git("show", "main:README.md")).toContain("Install everything");

  // a second run, here and once it is merged, has nothing to do
  const head = git("rev-parse", "HEAD");
  await run();
  git("switch", "--quiet", "main");
  git("merge", "--quiet", BRANCH);
  await run();
  expect(git("rev-parse", "HEAD")).toBe(head);
  expect(printed.filter((line) => line.includes("nothing new"))).toHaveLength(2);
});

test("where both changed the same lines there is a conflict, and nowhere else", async () => {
  await oldProject(() => edit("README.md", "A smart service, made", "A service, made"));
  await edit("README.md", "A service, made", "Our service, made");
  await edit("service.ts", "in memory, so that", "in memory, for us, so that");
  commit("Make it ours");
  const fault = await failure(run());
  expect(fault.code).toBe("conflict");
  expect(fault.message).toBe("step 2, merge: you and the template changed the same lines of README.md");
  expect(fault.hint).toContain("git merge --abort");
  expect(await read("README.md")).toContain("<<<<<<<");
  expect(await read("service.ts")).toContain("for us");
});

test("a port that the owners changed is nothing new, and new files have it", async () => {
  await oldProject(async () => undefined);
  await edit("smartstack.yaml", "port: 5004", "port: 6000");
  await edit("README.md", "on port 5004", "on port 6000");
  commit("Move");
  await run();
  expect(git("branch", "--show-current")).toBe("main");

  await rm(project, { recursive: true });
  await mkdir(project);
  await oldProject(() => rm(join(project, "README.md")));
  await edit("smartstack.yaml", "port: 5004", "port: 6000");
  commit("Move");
  await run();
  expect(await read("smartstack.yaml")).toContain("port: 6000");
  expect(await read("README.md")).toContain("on port 6000");
});

test("uncommitted work, a project without a beginning, no repository: refused, nothing changed", async () => {
  await oldProject(async () => undefined);
  await writeFile(join(project, "new.ts"), "");
  expect((await failure(run())).message).toBe("there is uncommitted work");
  await rm(join(project, "new.ts"));

  await rm(join(project, ".git"), { recursive: true });
  expect((await failure(run())).message).toBe("identity is not in a git repository");
  git("init", "--quiet");
  commit("Begin without smartstack");
  expect((await failure(run())).message).toBe("no commit of this history was made by smartstack gen");
  expect((await failure(run({ directory }))).message).toContain("has no smartstack.yaml");
  expect(printed).toEqual([]);
});

test("a branch from an update that was never merged is not overwritten", async () => {
  await oldProject(() => edit("README.md", "A smart service", "A service"));
  git("branch", BRANCH);
  const fault = await failure(run());
  expect(fault.message).toContain(`there is a branch ${BRANCH} already`);
  expect(git("branch", "--show-current")).toBe("main");
  expect(git("status", "--porcelain")).toBe("");
});
