// fixtures/gen/TEMPLATE is what each template makes of the name `identity` and port 5004: to be read, and to see in a diff what
// a change of a template does. `UPDATE_GOLDEN=1 bun test src/gen/golden.test.ts` writes it anew.
import { expect, test } from "bun:test";
import { readdir, readFile, rm, stat } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { builtIn, builtInNames } from "./embedded.ts";
import { placeholders } from "./generate.ts";
import { writeFiles } from "./staging.ts";
import { type GeneratedFile, parseTemplate, render } from "./template.ts";

const FIXTURES = resolve(import.meta.dir, "../../fixtures/gen");

async function readGolden(directory: string): Promise<readonly GeneratedFile[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = entries
    .filter((entry) => entry.isFile())
    .map(async (entry) => {
      const path = join(entry.parentPath, entry.name);
      const executable = ((await stat(path)).mode & 0o100) !== 0;
      return { path: relative(directory, path), text: await readFile(path, "utf8"), executable };
    });
  return (await Promise.all(files)).sort((a, b) => (a.path < b.path ? -1 : 1));
}

for (const name of builtInNames) {
  test(`the template ${name} makes what fixtures/gen/${name} shows`, async () => {
    const source = builtIn(name);
    if (source === undefined) throw new Error(`${name} is not built in`);
    const files = render(parseTemplate(source), placeholders("identity", 5004));
    const directory = join(FIXTURES, name);
    if (process.env.UPDATE_GOLDEN !== undefined) {
      await rm(directory, { recursive: true, force: true });
      await writeFiles(directory, files);
    }
    expect(files).toEqual(await readGolden(directory));
  });
}

test("the unit of a service gives it a user of its own, whatever the length of its name", () => {
  const user = (name: string): string | undefined => /^User=.*$/m.exec(placeholders(name, 5004).unit ?? "")?.[0];
  expect(user("identity")).toBe("User=svc-identity");
  expect(user("a".repeat(27))).toBe(`User=svc-${"a".repeat(27)}`);
  // longer than Linux takes: systemd makes one of the unit's name
  expect(user("a".repeat(28))).toBeUndefined();
});

test("every directory of fixtures/gen belongs to a template", async () => {
  expect((await readdir(FIXTURES)).sort()).toEqual([...builtInNames].sort());
});
