// Metadata is stored as JSON text; what is missing or no longer readable is an error, never a default.
import type { z } from "zod";
import { errorCode, Fault } from "../lib/errors.ts";

/** @throws Fault `meta_unreadable` */
export function parseMeta<T>(schema: z.ZodType<T>, text: string, what: string): T {
  try {
    return schema.parse(JSON.parse(text));
  } catch (error) {
    throw new Fault({
      code: "meta_unreadable",
      message: `${what} cannot be read`,
      hint: "The store is damaged; restore it from a backup.",
      cause: error,
    });
  }
}

export function missingMeta(what: string): Fault {
  return new Fault({
    code: "meta_missing",
    message: `${what} does not exist`,
    hint: "The store is damaged; restore it from a backup.",
  });
}

/** Among so many of the newest versions one that can be read is looked for. */
export const NEWEST_TRIED = 10;

/** What the first of them says that can be read; undefined when none can. */
export function firstReadable<T, R>(stored: readonly T[], read: (one: T) => R): R | undefined {
  for (const one of stored) {
    try {
      return read(one);
    } catch (error) {
      if (errorCode(error) !== "meta_unreadable") throw error;
    }
  }
  return undefined;
}
