// What a template is: a folder with `template.yaml` and `files/`. The built-in ones have the same form and come into the
// binary through embed.ts. The format, for people: docs/gen.md.
import { parse } from "yaml";
import { z } from "zod";
import { describeError, Fault } from "../core/lib/errors.ts";

const manifestSchema = z.strictObject({
  /** One line for `--help` and lists. */
  describe: z.string().min(1),
  /** Programs on PATH without which the project can be written but not tried out. */
  requires: z.array(z.string().min(1)).default([]),
  /** The command that runs the project's tests, in its directory. Absent: `smartstack test`. */
  test: z.array(z.string().min(1)).min(1).optional(),
  /** What the service answers with 200 once it can serve. */
  ready: z.string().startsWith("/").default("/readyz"),
});

/** A template as it lies on disk: the texts, nothing understood yet. */
export type TemplateSource = {
  readonly name: string;
  readonly manifest: string;
  /** Path below `files/`, with `/` between its parts → content. */
  readonly files: Readonly<Record<string, string>>;
};

export type Template = z.output<typeof manifestSchema> & {
  readonly name: string;
  readonly files: TemplateSource["files"];
};

/** @throws Fault `template` when the manifest is not what docs/gen.md says */
export function parseTemplate(source: TemplateSource): Template {
  const raw = parseYaml(source);
  const manifest = manifestSchema.safeParse(raw);
  if (!manifest.success)
    throw new Fault({
      code: "template",
      message: `template ${source.name}, template.yaml: ${z.prettifyError(manifest.error)}`,
    });
  return { ...manifest.data, name: source.name, files: source.files };
}

function parseYaml(source: TemplateSource): unknown {
  try {
    return parse(source.manifest);
  } catch (error) {
    throw new Fault({
      code: "template",
      message: `template ${source.name}, template.yaml: ${describeError(error)}`,
      cause: error,
    });
  }
}

/** What stands for each placeholder. */
export type Placeholders = Readonly<Record<string, string>>;

/** A file to write. `path` is relative, with `/` between its parts. */
export type GeneratedFile = { readonly path: string; readonly text: string; readonly executable: boolean };

const PLACEHOLDER = /\{\{([a-zA-Z]+)\}\}/g;

/**
 * Pure: a template's files with `{{placeholder}}` replaced, in names and contents, sorted by path. A name's `.tmpl` at the
 * end is dropped; a file that begins with `#!` is executable.
 * @throws Fault `template` naming file and line of a placeholder that has no value, or a path that leaves the project
 */
export function render(template: Template, values: Placeholders): readonly GeneratedFile[] {
  const files = Object.entries(template.files).map(([source, content]) => {
    const at = `template ${template.name}, ${source}`;
    const path = fill(source.replace(/\.tmpl$/, ""), values, at);
    checkPath(path, at);
    const text = content
      .split("\n")
      .map((line, index) => fill(line, values, `${at}:${index + 1}`))
      .join("\n");
    return { path, text, executable: text.startsWith("#!") };
  });
  const double = files.find(({ path }, index) => files.findIndex((other) => other.path === path) !== index);
  if (double !== undefined)
    throw new Fault({ code: "template", message: `template ${template.name} makes ${double.path} twice` });
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

function fill(text: string, values: Placeholders, at: string): string {
  return text.replaceAll(PLACEHOLDER, (whole, name: string) => {
    const value = Object.hasOwn(values, name) ? values[name] : undefined;
    if (value !== undefined) return value;
    throw new Fault({
      code: "template",
      message: `${at}: ${whole} has no value`,
      hint: `Placeholders are ${Object.keys(values).join(", ")}; write {{ with a space behind it to mean the braces.`,
    });
  });
}

function checkPath(path: string, at: string): void {
  const parts = path.split("/");
  if (parts.some((part) => part === "" || part === "." || part === "..") || path.includes("\\") || path.includes("\0"))
    throw new Fault({ code: "template", message: `${at}: the path "${path}" leaves the project` });
  if (parts[0] === ".git") throw new Fault({ code: "template", message: `${at}: .git belongs to git` });
}
