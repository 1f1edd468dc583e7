// KEY=VALUE arguments, and files that say the same: how definitions and settings are edited.
import { parseDocument } from "yaml";
import { describeError, Fault } from "../core/lib/errors.ts";
import { ConfigError } from "../core/lib/config-error.ts";
import { readText } from "./config.ts";

/** `KEY.PART=VALUE`, before anyone knows what type the value is wanted in. */
export type Assignment = { readonly key: string; readonly path: readonly string[]; readonly text: string };

export type JsonMap = { [key: string]: unknown };

/** @throws Fault `usage` for an argument that is no KEY=VALUE */
export function parseAssignments(args: readonly string[]): readonly Assignment[] {
  return args.map((arg) => {
    const [, key, text] = /^([^=]+)=(.*)$/s.exec(arg) ?? [];
    if (key === undefined || text === undefined)
      throw new Fault({ code: "usage", message: `"${arg}" is no KEY=VALUE`, hint: "For example: owner=core" });
    return { key, path: key.split("."), text };
  });
}

/**
 * What VALUE can mean, likeliest first: JSON when it is JSON, then the text itself. `1.10` is text, since as a number
 * it would come back as 1.1.
 */
export function readings(text: string): readonly unknown[] {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "number" && String(value) !== text ? [text] : [value, text];
  } catch (error) {
    if (error instanceof SyntaxError) return [text];
    throw error;
  }
}

/** A copy with one value put at a path; `undefined` removes it. */
export function withValue(map: JsonMap, [key = "", ...rest]: readonly string[], value: unknown): JsonMap {
  if (rest.length > 0) {
    const inner = map[key];
    return { ...map, [key]: withValue(isMap(inner) ? inner : {}, rest, value) };
  }
  const { [key]: _, ...others } = map;
  return value === undefined ? others : { ...map, [key]: value };
}

export function isMap(value: unknown): value is JsonMap {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A file of YAML or JSON that holds a map. @throws ConfigError that names the file and what is wrong */
export function readMapFile(path: string, source: string): JsonMap {
  const text = readText(path, "file", source);
  const complain = (message: string): ConfigError => new ConfigError([{ key: "file", source, message }]);
  const value = parseYaml(text, (reason) => complain(`${path} is not usable YAML: ${reason}`));
  if (!isMap(value)) throw complain(`${path} must hold keys and values`);
  return value;
}

function parseYaml(text: string, complain: (reason: string) => ConfigError): unknown {
  const document = parseDocument(text);
  const problem = document.errors[0] ?? document.warnings[0];
  if (problem !== undefined) throw complain(problem.message.split("\n", 1)[0] ?? "");
  try {
    return document.toJS({ maxAliasCount: 0 });
  } catch (error) {
    throw complain(describeError(error));
  }
}

/** The other way round: every value of a map under its dotted key, as text. */
export function fieldsOf(map: JsonMap, prefix = ""): readonly (readonly [string, string])[] {
  return Object.entries(map).flatMap(([key, value]): readonly (readonly [string, string])[] =>
    isMap(value) ? fieldsOf(value, `${prefix}${key}.`) : [[prefix + key, textOf(value)]],
  );
}

/** A value as people read it, and as `readings` takes it back. */
export function textOf(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}
