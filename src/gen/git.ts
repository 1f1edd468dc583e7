import { type ChildOptions, type Environment, runChild, which } from "./child.ts";

/** What became of the first commit. Nothing here makes a project worse, so nothing here is a failure. */
export type GitOutcome =
  | { readonly kind: "committed"; readonly note?: string }
  | { readonly kind: "skipped"; readonly reason: string };

/** Who commits on a machine that git knows nobody on. */
const NOBODY = ["-c", "user.name=smartstack gen", "-c", "user.email=smartstack@localhost"];

/**
 * `git init` and the first commit in `project`.
 * @param place the directory that the project will be moved into: inside somebody's repository it gets none of its own
 */
export async function commitProject(
  project: string,
  place: string,
  message: string,
  options: Omit<ChildOptions, "cwd">,
): Promise<GitOutcome> {
  if (which("git", options.environment) === undefined) return { kind: "skipped", reason: "git is not on PATH" };
  // run from a hook, git's own variables would point into the hook's repository
  const environment = { ...withoutRepository(options.environment), GIT_TERMINAL_PROMPT: "0", LC_ALL: "C" };
  const git = (cwd: string, ...args: string[]): ReturnType<typeof runChild> =>
    runChild(["git", ...args], { ...options, environment, cwd });

  const around = await git(place, "rev-parse", "--show-toplevel");
  if (around.code === 0) return { kind: "skipped", reason: `inside the repository ${around.output.trim()}` };

  // a signature could ask for a passphrase, and there is nobody to ask
  const commit = ["-c", "commit.gpgSign=false", "commit", "--quiet", "--message", message];
  for (const step of [
    ["init", "--quiet"],
    ["add", "--all"],
  ]) {
    const { code, output } = await git(project, ...step);
    if (code !== 0) return { kind: "skipped", reason: `git ${step[0]}: ${lastLine(output)}` };
  }
  const own = await git(project, ...commit);
  if (own.code === 0) return { kind: "committed" };
  const fallback = await git(project, ...NOBODY, ...commit);
  if (fallback.code === 0)
    return {
      kind: "committed",
      note: 'git knows no name and address of yours, so the commit is by "smartstack gen"; set user.name and user.email, then git commit --amend --reset-author',
    };
  return { kind: "skipped", reason: `git commit: ${lastLine(fallback.output)}` };
}

function withoutRepository(environment: Environment): Environment {
  const local =
    /^GIT_(DIR|WORK_TREE|INDEX_FILE|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES|COMMON_DIR|NAMESPACE|PREFIX)$/;
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !local.test(name)));
}

function lastLine(output: string): string {
  return output.trim().split("\n").at(-1) ?? "";
}
