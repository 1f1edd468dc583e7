// The tree of docs/architecture.md is what people search with: everything in it exists, and no folder is missing.
import { expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { Glob } from "bun";

const root = resolve(import.meta.dir, "../..");
const page = readFileSync(join(root, "docs/architecture.md"), "utf8");
const tree = /## Where each behaviour lives.*?```\n(.*?)```/s.exec(page)?.[1] ?? "";

/** Each folder of the tree with the text beside it, continuation lines included. */
function folders(): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  let folder = "";
  for (const line of tree.split("\n")) {
    const [, indent, path, text = ""] = /^( {0,2})([\w./-]+)(?: +(.*))?$/.exec(line) ?? [];
    if (path === undefined) found.set(folder, `${found.get(folder) ?? ""} ${line.trim()}`);
    else found.set((folder = indent === "" ? path : `src/${path}`), text);
  }
  return found;
}

test("every path of the tree exists, and so does every file named beside its folder", () => {
  for (const [folder, text] of folders()) {
    expect([folder, existsSync(join(root, folder))]).toEqual([folder, true]);
    for (const [name] of text.matchAll(/[\w*-]+(?:\.e2e)?\.(?:ts|md)\b/g)) {
      const files = [...new Glob(name).scanSync({ cwd: join(root, folder) })];
      expect([folder, name, files.length > 0]).toEqual([folder, name, true]);
    }
  }
});

test("no folder of the repository is missing in the tree", () => {
  const directories = (path: string): readonly string[] =>
    readdirSync(join(root, path), { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && !/^\.|^(node_modules|dist|core)$/.test(entry.name))
      .map(({ name }) => `${path}${name}/`);
  const there = [...directories(""), ...directories("src/"), ...directories("src/core/")].sort();
  const named = [...folders().keys()].filter((path) => path.endsWith("/")).sort();
  expect(named).toEqual(there);
});

test("decisions are numbered without a gap, and the list of them has each by its title", () => {
  const files = [...new Glob("[0-9]*.md").scanSync({ cwd: join(root, "docs/decisions") })].sort();
  const entries = files.map((file, index) => {
    const [title = ""] = readFileSync(join(root, "docs/decisions", file), "utf8").split("\n");
    const [, number = "", name = ""] = /^# (\d{4}) · (.+)$/.exec(title) ?? [];
    expect([file.slice(0, 4), number]).toEqual([number, String(index + 1).padStart(4, "0")]);
    return `- [${number}](${file}): ${name}`;
  });
  const list = readFileSync(join(root, "docs/decisions/README.md"), "utf8").split("\n");
  expect(list.filter((line) => line.startsWith("- ["))).toEqual(entries);
});
