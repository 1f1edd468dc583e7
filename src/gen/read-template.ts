// Reading templates from disk. It runs twice: when the binary is built, as a Bun macro that puts the built-in templates
// into it (embedded.ts), and when a template directory is read at run time.
import { readdirSync, readFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import type { TemplateSource } from "./template.ts";

/** One template directory. @throws the file system's error */
export function readTemplate(directory: string, name: string): TemplateSource {
  const root = join(directory, "files");
  const files = readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
    .map((path) => [relative(root, path).split(sep).join("/"), readFileSync(path, "utf8")] as const);
  return { name, manifest: readFileSync(join(directory, "template.yaml"), "utf8"), files: Object.fromEntries(files) };
}

/** The templates in src/gen/templates. */
export function readBuiltIn(): readonly TemplateSource[] {
  const root = join(import.meta.dir, "templates");
  return readdirSync(root)
    .sort()
    .map((name) => readTemplate(join(root, name), name));
}
