// `gen --update`: what a newer template makes of a project, merged with what its owners made of it. git does the merging: the
// commit of generated files that the project began with gets a child, the newer template's output, and that is merged.
import { mkdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { Fault } from "../core/lib/errors.ts";
import { VERSION } from "../core/lib/version.ts";
import { findTemplate } from "./catalog.ts";
import { placeholders, type GenDeps } from "./generate.ts";
import { commitMessage, type Git, gitIn, TEMPLATE_TRAILER, UNSIGNED, VERSION_TRAILER } from "./git.ts";
import { parseProject, readProject } from "./port.ts";
import { writeFiles } from "./staging.ts";
import { createSteps } from "./steps.ts";
import { type GeneratedFile, render } from "./template.ts";
import { boot, runTests } from "./verify.ts";

export type UpdateConfig = {
  /** The project, absolute. */
  readonly directory: string;
  readonly workingDirectory: string;
  /** When it is not the one that the project was made of: a built-in one's name, or a directory. */
  readonly template: string | undefined;
};

export type UpdateDeps = Omit<GenDeps, "atlas">;

/**
 * Merges what the template makes today into the project, on a branch of its own, then runs its tests and starts it once.
 * Does nothing when that is what the project was made of.
 * @throws Fault `not_updatable` when there is nothing to start from, or uncommitted work, or the branch exists: nothing was
 * changed; Fault `conflict` when both sides changed the same lines: the branch holds the merge, to be finished by hand; Fault
 * `tests_failed`, `boot_failed` when the merged project is not well: the branch holds it
 */
export async function update(config: UpdateConfig, deps: UpdateDeps): Promise<void> {
  const git = gitIn(config.directory, deps);
  if (git === undefined) throw notUpdatable("git is not on PATH, and git does the merging");
  const project = await inspect(git, config);
  const template = await findTemplate(config.template ?? project.base.template, config.workingDirectory);
  const branch = `smartstack-update-${VERSION}`;
  const versions = `${project.base.version} → ${VERSION}`;
  deps.print(`  service ${project.name} · port ${project.port} · template ${template.name} · smartstack ${versions}`);
  const home = await git.ask(["rev-parse", "--absolute-git-dir"]);
  const scratch = join(home, "smartstack-update");
  const treeOf = ({ name, port }: Named): Promise<string> =>
    writeTree(git, home, scratch, render(template, placeholders(name, port)));
  const steps = createSteps(deps.clock, deps.print);
  try {
    let generated: string | undefined;
    await steps.run("generate", async () => {
      // with the name and port it began with: what its owners changed since is nothing new of the template's
      const before = await git.ask(["rev-parse", `${project.base.commit}^{tree}`]);
      if ((await treeOf(project.base)) === before) return { text: "nothing new" };
      const message = commitMessage(`Update ${project.name}`, template.name);
      const args = [await treeOf(project), "-p", project.base.commit, "-m", message];
      generated = (await git.commit(["commit-tree", ...UNSIGNED, ...args])).output;
      return { text: `${Object.keys(template.files).length} files` };
    });
    if (generated === undefined) return;
    const commit = generated;
    await steps.run("merge", () => merge(git, branch, commit, project.branch));
    const trial = { ...deps, project: config.directory, template, scratch };
    await steps.run("test", () => runTests(trial));
    await steps.run("boot", () => boot(trial));
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
  deps.print(
    `The update is on the branch ${branch}, where you are now.\nNext:  git switch ${project.branch} && git merge ${branch}`,
  );
}

type Named = { readonly name: string; readonly port: number };

type Project = Named & {
  /** Where the user was: a branch, or a commit. */
  readonly branch: string;
  /** The last commit of generated files: what they were made of, and by which version. */
  readonly base: Named & { readonly commit: string; readonly template: string; readonly version: string };
};

async function inspect(git: Git, { directory }: UpdateConfig): Promise<Project> {
  const { name, port } = await readProject(directory);
  if (name === undefined || port === undefined)
    throw notUpdatable(`${basename(directory)} has no smartstack.yaml with a name and a port`);
  const root = await git.run(["rev-parse", "--show-prefix"]);
  if (root.code !== 0) throw notUpdatable(`${basename(directory)} is not in a git repository`);
  if (root.output.trim() !== "") throw notUpdatable(`${basename(directory)} is a part of a larger repository`);
  if ((await git.ask(["status", "--porcelain"])) !== "")
    throw notUpdatable("there is uncommitted work", "Commit it, or git stash --include-untracked.");
  // children before parents: the newest of those commits
  const format = `--format=%H%n%(trailers:key=${TEMPLATE_TRAILER},valueonly,separator=%x20)%n%(trailers:key=${VERSION_TRAILER},valueonly,separator=%x20)`;
  const found = await git.ask(["log", "--topo-order", "-1", `--grep=^${TEMPLATE_TRAILER}: `, format]);
  const [commit = "", template = "", version = ""] = found.split("\n");
  if (commit === "")
    throw notUpdatable(
      "no commit of this history was made by smartstack gen",
      "Compare by hand: smartstack gen NAME --dir . --dry-run shows how the project differs from what the template makes now.",
    );
  const began = parseProject(await git.ask(["show", `${commit}:smartstack.yaml`]));
  const branch = await git.run(["symbolic-ref", "--quiet", "--short", "HEAD"]);
  return {
    name,
    port,
    base: { commit, template, version, name: began.name ?? name, port: began.port ?? port },
    branch: branch.code === 0 ? branch.output.trim() : await git.ask(["rev-parse", "--short", "HEAD"]),
  };
}

/** The files and nothing else as a tree in the repository. */
async function writeTree(git: Git, home: string, scratch: string, files: readonly GeneratedFile[]): Promise<string> {
  await rm(scratch, { recursive: true, force: true });
  const tree = join(scratch, "tree");
  await mkdir(tree, { recursive: true });
  await writeFiles(tree, files);
  // an index and a work tree of its own: the user's are not touched
  const apart = { GIT_DIR: home, GIT_INDEX_FILE: join(scratch, "index"), GIT_WORK_TREE: tree };
  await git.ask(["-C", tree, "add", "--all", "--force", "."], apart);
  return git.ask(["-C", tree, "write-tree"], apart);
}

async function merge(git: Git, branch: string, commit: string, from: string): Promise<{ text: string; note?: string }> {
  if ((await git.run(["rev-parse", "--verify", "--quiet", `refs/heads/${branch}`])).code === 0)
    throw notUpdatable(`there is a branch ${branch} already`, "Merge it, or delete it with git branch -D.");
  await git.ask(["checkout", "--quiet", "-b", branch]);
  const message = `Merge what smartstack ${VERSION} generates`;
  const args = ["merge", ...UNSIGNED, "--quiet", "--no-ff", "--no-edit", "-m", message, commit];
  try {
    await git.commit(args);
  } catch (error) {
    const both = (await git.ask(["diff", "--name-only", "--diff-filter=U"])).split("\n").filter((path) => path !== "");
    if (both.length === 0) throw error;
    throw new Fault({
      code: "conflict",
      message: `you and the template changed the same lines of ${both.join(", ")}`,
      hint: `You are on the branch ${branch}, and the files show both versions: edit them, git add, git commit.\nTo give up: git merge --abort && git switch ${from} && git branch -D ${branch}`,
    });
  }
  return { text: "merged" };
}

function notUpdatable(message: string, hint?: string): Fault {
  return new Fault({ code: "not_updatable", message, hint });
}
