import { expect, test } from "bun:test";
import { mkdtemp, mkdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { builtIn, builtInNames } from "./embedded.ts";
import { readBuiltIn, readTemplate } from "./read-template.ts";
import { parseTemplate, render, type TemplateSource } from "./template.ts";

const template = (files: TemplateSource["files"]): ReturnType<typeof parseTemplate> =>
  parseTemplate({ name: "own", manifest: "describe: for this test", files });

test("placeholders are replaced in names and contents, .tmpl is dropped, a script is executable", () => {
  const files = render(
    template({
      "unit/{{name}}.service.tmpl": "Run {{name}} on {{port}}\n",
      "run.sh": "#!/bin/sh\necho {{name}}{{port}}\n",
    }),
    { name: "identity", port: "5004" },
  );
  expect(files).toEqual([
    { path: "run.sh", text: "#!/bin/sh\necho identity5004\n", executable: true },
    { path: "unit/identity.service", text: "Run identity on 5004\n", executable: false },
  ]);
});

test("braces that are no placeholder stay: a CI file's, JSX's, a value's own", () => {
  const text = "${{ secrets.KEY }} {{ name }} {{}} style={{a:1}}\n";
  expect(render(template({ "ci.yaml": text }), { name: "x" })[0]?.text).toBe(text);
  expect(render(template({ a: "{{name}}" }), { name: "{{port}}" })[0]?.text).toBe("{{port}}");
});

test("a placeholder without a value is named with file and line", () => {
  const files = { "docs/a.md.tmpl": "fine\n{{name}} and {{owner}}\n" };
  expect(() => render(template(files), { name: "x" })).toThrow("own, docs/a.md.tmpl:2: {{owner}} has no value");
  // what every object inherits is no value
  expect(() => render(template({ a: "{{constructor}}" }), { name: "x" })).toThrow("has no value");
});

test("a path that leaves the project, or goes into .git, is refused, also when a value makes it so", () => {
  for (const path of ["../x", "a/../../x", "/etc/passwd", "a//b", ".git/hooks/post-commit", "./x", "a\\b"])
    expect(() => render(template({ [path]: "" }), {})).toThrow(/leaves the project|belongs to git/);
  expect(() => render(template({ "{{name}}": "" }), { name: "../x" })).toThrow("leaves the project");
  expect(() => render(template({ a: "", "a.tmpl": "" }), {})).toThrow("makes a twice");
});

test("a manifest is checked", () => {
  const parse = (manifest: string) => () => parseTemplate({ name: "own", manifest, files: {} });
  expect(parse("describe: x\nrequire: [python3]")).toThrow("require");
  expect(parse("[")).toThrow("template own, template.yaml");
  expect(parse("")).toThrow("template own, template.yaml");
});

test("every file of src/gen/templates is built in, and every template renders", () => {
  expect(builtInNames).toEqual(["command", "minimal", "typescript"]);
  for (const source of readBuiltIn()) {
    expect(builtIn(source.name)).toEqual(source);
    const values = { name: "x", package: "x", title: "X", port: "1", hono: "1", zod: "1", typesBun: "1" };
    const files = render(parseTemplate(source), values);
    expect(files.map(({ path }) => path)).toContain("smartstack.yaml");
    for (const { path, text } of files) {
      // no linter or test runner of ours may take a template for source
      expect(`${path} ${text.endsWith("\n")} ${/\{\{[a-z]/i.test(text)}`).toBe(`${path} true false`);
    }
  }
});

test("a template is read from a directory with everything below files/", async () => {
  const directory = await mkdtemp(join(tmpdir(), "smartstack-template-"));
  await mkdir(join(directory, "files/a/b"), { recursive: true });
  await writeFile(join(directory, "template.yaml"), "describe: mine\n");
  await writeFile(join(directory, "files/.hidden"), "1");
  await writeFile(join(directory, "files/a/b/c.txt"), "2");
  expect(readTemplate(directory, "mine")).toEqual({
    name: "mine",
    manifest: "describe: mine\n",
    files: { ".hidden": "1", "a/b/c.txt": "2" },
  });
  await rm(directory, { recursive: true });
});
