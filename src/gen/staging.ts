// All or nothing: a project is made in a hidden directory beside its place, and moved there by one rename when everything
// is well. A run that was killed leaves at most that hidden directory, and the next run removes it.
import { mkdir, mkdtemp, readdir, readFile, rename, rm, rmdir, stat, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { errorCode, Fault } from "../core/lib/errors.ts";
import type { GeneratedFile } from "./template.ts";

const PREFIX = ".smartstack-gen-";
/** No run takes this long: what is older was left by a host or container that is gone. In ms. */
const ABANDONED_AFTER = 24 * 3_600_000;

export type Staging = {
  /** The hidden directory, for this run alone. */
  readonly directory: string;
  /** Where the project is made, inside it. */
  readonly project: string;
  /** Removes it with everything in it, and the parents that were made for it if they are empty. */
  remove(): Promise<void>;
};

/**
 * Makes the hidden directory in `parent`, and `parent` itself when it is missing; first removes what killed runs left there.
 * @throws Fault `unwritable` when the place cannot be written
 */
export async function stage(parent: string, name: string): Promise<Staging> {
  try {
    const made = await mkdir(parent, { recursive: true });
    await sweep(parent);
    const owner = `${hostname()}-${process.pid}-${await startOf(process.pid)}`;
    const directory = await mkdtemp(join(parent, `${PREFIX}${owner}-`));
    const project = join(directory, name);
    await mkdir(project);
    return {
      directory,
      project,
      async remove() {
        // a child that was just killed may still have been writing: try again what is not empty
        await rm(directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 });
        if (made !== undefined) await removeEmpty(parent, dirname(made));
      },
    };
  } catch (error) {
    throw new Fault({
      code: "unwritable",
      message: `cannot write in ${parent}`,
      cause: error,
      hint: "Choose another place with --dir.",
    });
  }
}

/** Removes `directory` and its parents up to, not including, `end`, while they are empty. */
async function removeEmpty(directory: string, end: string): Promise<void> {
  for (let path = directory; path !== end; path = dirname(path)) {
    try {
      await rmdir(path);
    } catch (error) {
      // in use by somebody, the finished project for one
      if (errorCode(error) === "ENOTEMPTY" || errorCode(error) === "EEXIST") return;
      throw error;
    }
  }
}

/** Removes the hidden directories of runs that are over. */
async function sweep(parent: string): Promise<void> {
  for (const entry of await readdir(parent)) {
    if (!entry.startsWith(PREFIX)) continue;
    const path = join(parent, entry);
    if (await isAbandoned(entry, path)) await rm(path, { recursive: true, force: true });
  }
}

async function isAbandoned(entry: string, path: string): Promise<boolean> {
  const [, host, pid, start] = /^\.smartstack-gen-(.+)-(\d+)-(\d+)-[^-]+$/.exec(entry) ?? [];
  if (host === hostname()) return (await startOf(Number(pid))) !== start;
  try {
    return Date.now() - (await stat(path)).mtimeMs > ABANDONED_AFTER;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}

/**
 * When a process started, in ticks since boot, so that a number that was given to another process is not taken for the old
 * one. "0" for a live process where /proc does not say, undefined for none.
 * Source: proc(5), `/proc/PID/stat` field 22.
 */
async function startOf(pid: number): Promise<string | undefined> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (errorCode(error) === "ESRCH") return undefined;
  }
  const line = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  // the second field is the program's name in parentheses, and may hold blanks and parentheses itself
  const fields = line.slice(line.lastIndexOf(")") + 2).split(" ");
  // a zombie is over, only its parent has not asked yet
  if (fields[0] === "Z") return undefined;
  return fields[19] ?? "0";
}

/** Writes the files of a project. @throws the file system's error */
export async function writeFiles(directory: string, files: readonly GeneratedFile[]): Promise<void> {
  for (const parent of new Set(files.map(({ path }) => dirname(join(directory, path)))))
    await mkdir(parent, { recursive: true });
  await Promise.all(
    files.map(({ path, text, executable }) =>
      writeFile(join(directory, path), text, { mode: executable ? 0o755 : 0o644 }),
    ),
  );
}

/**
 * Moves a finished project to its place by one rename. `target` must be missing or empty.
 * An empty directory that is the caller's working directory is filled instead of replaced, entry by entry: its shell would
 * otherwise sit in a directory that is gone.
 * @throws Fault `exists` when somebody else put something there meanwhile
 */
export async function moveIntoPlace(project: string, target: string, workingDirectory: string): Promise<void> {
  try {
    if (target !== workingDirectory) return await rename(project, target);
    for (const entry of await readdir(project)) await rename(join(project, entry), join(target, entry));
  } catch (error) {
    const code = errorCode(error) ?? "";
    if (["ENOTEMPTY", "EEXIST", "ENOTDIR"].includes(code))
      throw new Fault({ code: "exists", message: `${target} appeared meanwhile; it is untouched`, cause: error });
    throw new Fault({
      code: "unwritable",
      message: `the finished project cannot be moved to ${target}`,
      cause: error,
      // EBUSY, EXDEV: a mount point, which nothing can be renamed to
      hint: "Choose another place with --dir; a mount point does not do, a directory in it does.",
    });
  }
}

/**
 * Replaces single files of an existing project, each by one rename: whoever reads sees the old or the new one.
 * @throws Fault `unwritable` that says how far it came
 */
export async function moveFiles(project: string, target: string, paths: readonly string[]): Promise<void> {
  for (const [index, path] of paths.entries()) {
    try {
      await mkdir(dirname(join(target, path)), { recursive: true });
      await rename(join(project, path), join(target, path));
    } catch (error) {
      throw new Fault({
        code: "unwritable",
        message: `${path} cannot be replaced; ${index} of ${paths.length} files were`,
        cause: error,
        hint: "Make it writable and run the same command again: it replaces what still differs.",
      });
    }
  }
}
