// git as gen uses it: it asks nobody, signs nothing, and is at home in the directory it is told.
import { Fault } from "../core/lib/errors.ts";
import { VERSION } from "../core/lib/version.ts";
import { type ChildOptions, type Environment, runChild, which } from "./child.ts";

/** Who commits on a machine that git knows nobody on. */
const NOBODY = {
  GIT_AUTHOR_NAME: "smartstack gen",
  GIT_AUTHOR_EMAIL: "smartstack@localhost",
  GIT_COMMITTER_NAME: "smartstack gen",
  GIT_COMMITTER_EMAIL: "smartstack@localhost",
};

/** A signature could ask for a passphrase, and there is nobody to ask. */
export const UNSIGNED = ["--no-gpg-sign"];

export type GitOptions = Pick<ChildOptions, "environment" | "signal">;

export interface Git {
  /** Runs git in the directory, with further variables when given. Never throws for what git says. */
  run(args: readonly string[], more?: Environment): Promise<{ readonly code: number; readonly output: string }>;
  /** What git printed, without the line end. @throws Fault `git` with what it said */
  ask(args: readonly string[], more?: Environment): Promise<string>;
  /** A commit-making command; as nobody when git knows no identity, and then true. @throws Fault `git` */
  commit(args: readonly string[], more?: Environment): Promise<{ readonly output: string; readonly asNobody: boolean }>;
}

/** git in a directory, or undefined when it is not on PATH. */
export function gitIn(cwd: string, { environment, signal }: GitOptions): Git | undefined {
  if (which("git", environment) === undefined) return undefined;
  // run from a hook, git's own variables would point into the hook's repository
  const own = { ...withoutRepository(environment), GIT_TERMINAL_PROMPT: "0", GIT_EDITOR: "true", LC_ALL: "C" };
  const run: Git["run"] = (args, more) => runChild(["git", ...args], { cwd, signal, environment: { ...own, ...more } });
  const ask: Git["ask"] = async (args, more) => {
    const { code, output } = await run(args, more);
    if (code === 0) return output.trimEnd();
    throw new Fault({ code: "git", message: `git ${args[0] ?? ""}: ${lastLine(output)}` });
  };
  return {
    run,
    ask,
    async commit(args, more) {
      const { code, output } = await run(args, more);
      if (code === 0) return { output: output.trimEnd(), asNobody: false };
      return { output: await ask(args, { ...more, ...NOBODY }), asNobody: true };
    },
  };
}

function withoutRepository(environment: Environment): Environment {
  const local =
    /^GIT_(DIR|WORK_TREE|INDEX_FILE|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES|COMMON_DIR|NAMESPACE|PREFIX)$/;
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !local.test(name)));
}

function lastLine(output: string): string {
  return output.trim().split("\n").at(-1) ?? "";
}

/** A commit of generated files, and nothing else, says so: `gen --update` starts from the last one. */
export const TEMPLATE_TRAILER = "Smartstack-Template";
export const VERSION_TRAILER = "Smartstack-Version";

export function commitMessage(subject: string, template: string): string {
  return `${subject}\n\n${TEMPLATE_TRAILER}: ${template}\n${VERSION_TRAILER}: ${VERSION}`;
}

/** What became of the first commit. Nothing here makes a project worse, so nothing here is a failure. */
export type GitOutcome =
  | { readonly kind: "committed"; readonly note?: string | undefined }
  | { readonly kind: "skipped"; readonly reason: string };

const AS_NOBODY =
  'git knows no name and address of yours, so the commit is by "smartstack gen"; set user.name and user.email, then git commit --amend --reset-author';

/**
 * `git init` and the first commit in `project`.
 * @param place the directory that the project will be moved into: inside somebody's repository it gets none of its own
 */
export async function commitProject(
  project: string,
  place: string,
  message: string,
  options: GitOptions,
): Promise<GitOutcome> {
  const git = gitIn(project, options);
  if (git === undefined) return { kind: "skipped", reason: "git is not on PATH" };
  const around = await gitIn(place, options)?.run(["rev-parse", "--show-toplevel"]);
  if (around?.code === 0) return { kind: "skipped", reason: `inside the repository ${around.output.trim()}` };
  try {
    await git.ask(["init", "--quiet"]);
    await git.ask(["add", "--all"]);
    const { asNobody } = await git.commit(["commit", ...UNSIGNED, "--quiet", "--message", message]);
    return { kind: "committed", note: asNobody ? AS_NOBODY : undefined };
  } catch (error) {
    if (error instanceof Fault && error.code === "git") return { kind: "skipped", reason: error.message };
    throw error;
  }
}
