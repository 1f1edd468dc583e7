import { expect, test } from "bun:test";
import { z } from "zod";
import { plainly } from "./plainly.ts";

test.each([
  [z.string(), undefined, "is missing; it must be text"],
  [z.string(), null, "must be text, not empty"],
  [z.string(), ["a"], "must be text, not a list"],
  [z.number(), "x", "must be a number, not text"],
  [z.int(), 1.5, "must be a whole number, not a fraction"],
  [z.int().min(0), -1, "must be at least 0"],
  [z.number().max(256), 257, "must be at most 256"],
  [z.number().positive(), 0, "must be more than 0"],
  [z.string().min(20), "short", "must have at least 20 characters"],
  [z.array(z.string()).max(1), ["a", "b"], "must have at most 1 items"],
  [z.enum(["fast", "safe"]), "slow", "must be one of fast, safe"],
  [z.object({}), true, "must be keys and values, not true or false"],
  [z.string("a word, please"), 1, "a word, please"],
] as const)("%# an issue reads as a person would say it", (schema, value, words) => {
  expect(schema.safeParse(value, { error: plainly }).error?.issues[0]?.message).toBe(words);
});
