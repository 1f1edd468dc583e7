// The built-in templates. `type: "macro"` runs readBuiltIn while Bun transpiles this file, so that the binary holds its
// result and needs no file beside it.
import { readBuiltIn } from "./read-template.ts" with { type: "macro" };
import type { TemplateSource } from "./template.ts";

const sources: readonly TemplateSource[] = readBuiltIn();

/** A built-in template by its name. */
export function builtIn(name: string): TemplateSource | undefined {
  return sources.find((source) => source.name === name);
}

export const builtInNames: readonly string[] = sources.map(({ name }) => name);
