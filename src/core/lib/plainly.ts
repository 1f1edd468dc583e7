// zod's words for its own issues ("Invalid input: expected string, received undefined") say less than a person would.
import type { z } from "zod";

type Issue = Parameters<z.core.$ZodErrorMap>[0];

/**
 * What is wrong with a value, in words that follow its key: `port: must be a number, not text`. For
 * `schema.safeParse(value, { error: plainly })`; messages that a schema has itself stay.
 */
export function plainly(issue: Issue): string | undefined {
  switch (issue.code) {
    case "invalid_type":
      return issue.input === undefined
        ? `is missing; it must be ${kindNamed(issue.expected)}`
        : `must be ${kindNamed(issue.expected)}, not ${kindOf(issue.input)}`;
    case "invalid_value":
      return `must be ${issue.values.length === 1 ? "" : "one of "}${issue.values.map(String).join(", ")}`;
    case "too_small":
      return `must ${quantity(issue.origin, `${issue.minimum}`, issue.inclusive === false ? "more than" : "at least")}`;
    case "too_big":
      return `must ${quantity(issue.origin, `${issue.maximum}`, issue.inclusive === false ? "less than" : "at most")}`;
    default:
      return undefined;
  }
}

function quantity(origin: string, bound: string, relation: string): string {
  if (origin === "string") return `have ${relation} ${bound} characters`;
  return origin === "array" || origin === "set" ? `have ${relation} ${bound} items` : `be ${relation} ${bound}`;
}

const KINDS: Readonly<Record<string, string>> = {
  string: "text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list",
  object: "keys and values",
  record: "keys and values",
};

function kindNamed(expected: string): string {
  return KINDS[expected] ?? `a ${expected}`;
}

function kindOf(input: unknown): string {
  if (input === null) return "empty";
  if (Array.isArray(input)) return "a list";
  if (typeof input === "number") return Number.isInteger(input) ? "a number" : "a fraction";
  return KINDS[typeof input] ?? `a ${typeof input}`;
}
