import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { dirname, relative, resolve } from "node:path";

const source = resolve(import.meta.dir, "..");

/** What every command evaluates at its start: everything that can be reached without a dynamic import. */
function staticallyReached(entry: string): ReadonlySet<string> {
  const reached = new Set<string>();
  const transpiler = new Bun.Transpiler({ loader: "ts" });
  const visit = (file: string): void => {
    if (reached.has(file)) return;
    reached.add(file);
    if (!file.startsWith(source) || !file.endsWith(".ts")) return;
    for (const { kind, path } of transpiler.scanImports(readFileSync(file, "utf8")))
      if (kind !== "dynamic-import" && !/^(bun|node):|^bun$/.test(path)) visit(Bun.resolveSync(path, dirname(file)));
  };
  visit(entry);
  return reached;
}

test("the table of commands costs every start of the program, so it loads no program and few packages", () => {
  const reached = [...staticallyReached(resolve(import.meta.dir, "commands.ts"))];
  const packages = new Set(reached.flatMap((file) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(file)?.[1] ?? []));
  expect([...packages].toSorted()).toEqual(["eventsource-parser", "yaml", "zod"]);
  const programs = reached
    .map((file) => relative(source, file))
    .filter((file) => /^(atlas|sidecar|serve|gen|core\/(registry|haproxy|client|service))\//.test(file));
  // how to run this program again: a page of code without imports
  expect(programs).toEqual(["serve/self.ts"]);
});
