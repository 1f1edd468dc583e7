import { expect, test } from "bun:test";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findTemplate } from "./catalog.ts";
import { builtIn, builtInNames } from "./embedded.ts";
import { placeholders } from "./generate.ts";
import { readBuiltIn } from "./read-template.ts";
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
    const files = render(parseTemplate(source), placeholders("x", 1));
    expect(files.map(({ path }) => path)).toContain("smartstack.yaml");
    for (const { path, text } of files) {
      // no linter or test runner of ours may take a template for source
      expect(`${path} ${text.endsWith("\n")} ${/\{\{[a-z]/i.test(text)}`).toBe(`${path} true false`);
    }
  }
});

test("a template of one's own is a directory, and everything below files/ counts", async () => {
  const directory = await mkdtemp(join(tmpdir(), "smartstack-template-"));
  const find = (): ReturnType<typeof findTemplate> => findTemplate("./mine", directory);
  const own = join(directory, "mine");
  await mkdir(join(own, "files/a/b"), { recursive: true });
  expect(find()).rejects.toMatchObject({ code: "usage", message: "./mine is not a template" });
  await writeFile(join(own, "template.yaml"), "describe: mine\nready: /up\n");
  await writeFile(join(own, "files/.hidden"), "1");
  await writeFile(join(own, "files/a/b/c.txt"), "2");
  expect(await find()).toMatchObject({
    name: "./mine",
    ready: "/up",
    files: { ".hidden": "1", "a/b/c.txt": "2" },
  });

  await writeFile(join(own, "files/logo.png"), new Uint8Array([0x89, 0x50, 0, 0xff]));
  expect(find()).rejects.toMatchObject({ code: "template", message: expect.stringContaining("logo.png") });
  await rm(join(own, "files/logo.png"));
  await symlink("/etc", join(own, "files/a/etc"));
  expect(find()).rejects.toMatchObject({
    code: "template",
    message: expect.stringContaining("a/etc: a template holds plain"),
  });
  await rm(directory, { recursive: true });
});

test("a template that does not exist is answered with those that do", () => {
  expect(findTemplate("cobol", "/")).rejects.toMatchObject({ code: "usage", hint: expect.stringContaining("minimal") });
  expect(findTemplate("./nowhere", "/")).rejects.toMatchObject({ code: "usage" });
});
