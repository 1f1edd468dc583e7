// What the running HAProxy was loaded with, on disk beside its configuration. By it the next sidecar knows whether the HAProxy
// it adopts needs a reload, can say what changed, and knows the last good form of a definition that is refused.
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { writeFileAtomic } from "../lib/atomic-file.ts";
import { errorCode } from "../lib/errors.ts";
import { parseJson } from "../lib/json.ts";
import { type Definition, readDefinitionSchema } from "../model/service.ts";
import type { Structure } from "./render.ts";

/** The structure of the last load, the definitions it came from, and the master that did it. */
export type Loaded = {
  readonly structure: Structure;
  readonly definitions: Readonly<Record<string, Definition>>;
  readonly master: number;
};

const loadedSchema = z.object({
  master: z.int(),
  id: z.string(),
  frame: z.string(),
  backends: z.record(z.string(), z.string()),
  definitions: z.record(z.string(), readDefinitionSchema),
});

export async function writeLoaded(path: string, { structure, definitions, master }: Loaded): Promise<void> {
  const { id, frame, backends } = structure;
  const text = JSON.stringify({ master, id, frame, backends: Object.fromEntries(backends), definitions });
  await writeFileAtomic(path, text, { durable: false });
}

/** Undefined when there is none, or none that can be understood: then a reload settles it. */
export async function readLoaded(path: string): Promise<Loaded | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
  const parsed = loadedSchema.safeParse(parseJson(text));
  if (!parsed.success) return undefined;
  const { master, id, frame, backends, definitions } = parsed.data;
  const known: Record<string, Definition> = definitions;
  return { structure: { id, frame, backends: new Map(Object.entries(backends)) }, definitions: known, master };
}
