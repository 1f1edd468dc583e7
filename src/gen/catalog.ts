// Where a template comes from: the binary, or a directory of the user's own.
import { lstat, readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { errorCode, Fault } from "../core/lib/errors.ts";
import { builtIn, builtInNames } from "./embedded.ts";
import { readTemplate } from "./read-template.ts";
import { parseTemplate, type Template, type TemplateSource } from "./template.ts";

/**
 * A template by what `--template` says: a built-in one's name, or a directory, which has a '/' in it (`./mine`, `/srv/mine`).
 * @throws Fault `usage` when there is none; Fault `template` when it is not what docs/gen.md says
 */
export async function findTemplate(given: string, workingDirectory: string): Promise<Template> {
  if (given.includes("/")) return parseTemplate(await readOwn(resolve(workingDirectory, given), given));
  const source = builtIn(given);
  if (source !== undefined) return parseTemplate(source);
  throw new Fault({
    code: "usage",
    message: `there is no template "${given}"`,
    hint: `Templates are ${builtInNames.join(", ")}; a directory of your own is written with a '/': ./${given}`,
  });
}

async function readOwn(directory: string, given: string): Promise<TemplateSource> {
  try {
    await refuseLinks(join(directory, "files"), given);
    const source = readTemplate(directory, given);
    for (const [path, text] of Object.entries(source.files)) {
      // what is no UTF-8 was already replaced while it was read
      if (/[\0\uFFFD]/.test(text))
        throw new Fault({ code: "template", message: `template ${given}, ${path}: a template holds text files only` });
    }
    return source;
  } catch (error) {
    if (error instanceof Fault) throw error;
    const missing = errorCode(error) === "ENOENT" || errorCode(error) === "ENOTDIR";
    throw new Fault({
      code: missing ? "usage" : "template",
      message: `${given} is not a template`,
      cause: error,
      hint: "A template is a directory with template.yaml and files/; see docs/gen.md.",
    });
  }
}

/** A link could lead anywhere on this machine, and its target into the project. */
async function refuseLinks(root: string, given: string): Promise<void> {
  for (const path of [".", ...(await readdir(root, { recursive: true }))]) {
    const entry = await lstat(join(root, path));
    if (!entry.isFile() && !entry.isDirectory())
      throw new Fault({ code: "template", message: `template ${given}, ${path}: a template holds plain files only` });
  }
}
