// What writing a project would change in a directory, and how people see it: a tree and a diff.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createTwoFilesPatch } from "diff";
import { errorCode, Fault } from "../core/lib/errors.ts";
import type { GeneratedFile } from "./template.ts";

export type Change = {
  readonly path: string;
  readonly kind: "new" | "changed" | "same";
  readonly before: string;
  readonly after: string;
};

/**
 * Every generated file against what lies in `directory`, which may be missing.
 * @throws Fault `exists` when something that is no file is in the way
 */
export async function compare(directory: string, files: readonly GeneratedFile[]): Promise<readonly Change[]> {
  return Promise.all(
    files.map(async ({ path, text }) => {
      const before = await readExisting(join(directory, path));
      const kind = before === undefined ? "new" : before === text ? "same" : "changed";
      return { path, kind, before: before ?? "", after: text } as const;
    }),
  );
}

async function readExisting(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw new Fault({
      code: "exists",
      message: `${path} is in the way`,
      cause: error,
      hint: "Move it, or generate elsewhere with --dir.",
    });
  }
}

/** A unified diff of everything that changes, as `git apply` and `patch -p1` read it. */
export function formatDiff(changes: readonly Change[]): string {
  return changes
    .filter(({ kind }) => kind !== "same")
    .map(({ path, kind, before, after }) => {
      const from = kind === "new" ? "/dev/null" : `a/${path}`;
      const patch = createTwoFilesPatch(from, `b/${path}`, before, after, undefined, undefined, { context: 3 });
      // the library's own rule over each file
      return patch.replace(/^=+\n/, "");
    })
    .join("");
}

const MARK: Readonly<Record<Change["kind"], string>> = { new: "", changed: "  (changed)", same: "  (same)" };

/** The files as a tree below `title`; `mark` says what is new where something exists. */
export function formatTree(title: string, changes: readonly Change[]): string {
  const lines = [title];
  const walk = (paths: readonly { parts: readonly string[]; mark: string }[], indent: string): void => {
    const names = [...new Set(paths.map(({ parts }) => parts[0] ?? ""))];
    names.forEach((name, index) => {
      const last = index === names.length - 1;
      const here = paths.filter(({ parts }) => parts[0] === name);
      const leaf = here.find(({ parts }) => parts.length === 1);
      lines.push(`${indent}${last ? "└── " : "├── "}${name}${leaf === undefined ? "/" : leaf.mark}`);
      const below = here
        .filter(({ parts }) => parts.length > 1)
        .map(({ parts, mark }) => ({ parts: parts.slice(1), mark }));
      walk(below, `${indent}${last ? "    " : "│   "}`);
    });
  };
  walk(
    changes.map(({ path, kind }) => ({ parts: path.split("/"), mark: MARK[kind] })),
    "",
  );
  return `${lines.join("\n")}\n`;
}
