// From flags, environment and a configuration file to the values a command runs with, each with where it came from.
// Precedence: flag > environment > file > default. The one place of the command line that reads process.env.
import { closeSync, openSync, readSync } from "node:fs";
import { resolve } from "node:path";
import { type Document, isMap, isScalar, isSeq, LineCounter, type ParsedNode, parseDocument } from "yaml";
import { ConfigError, type ConfigIssue } from "../core/lib/config-error.ts";
import { describeError } from "../core/lib/errors.ts";
import type { Option } from "./options.ts";

export type Options = Readonly<Record<string, Option<unknown>>>;

/** The values of a set of options. */
export type Values<O extends Options> = { readonly [K in keyof O]: O[K]["default"] };

/** Where a value came from. */
export type Source =
  | { readonly kind: "flag"; readonly flag: string }
  | { readonly kind: "environment"; readonly name: string }
  | { readonly kind: "file"; readonly path: string; readonly line: number }
  | { readonly kind: "default" };

export type Resolved<O extends Options> = {
  readonly values: Values<O>;
  readonly sources: { readonly [K in keyof O]: Source };
};

/** What was given, before it was read. `flags` has the raw value of every flag that was on the command line. */
export type Given = {
  readonly flags: Readonly<Record<string, unknown>>;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly file?: { readonly path: string; readonly text: string } | undefined;
  /** What already went wrong on the way here, such as a file that cannot be read; told together with the rest. */
  readonly issues?: readonly ConfigIssue[];
};

/** `dataDir` → `--data-dir`. */
export function flagOf(key: string): string {
  return `--${kebab(key)}`;
}

/** `dataDir` → `SMARTSTACK_DATA_DIR`. */
export function environmentNameOf(key: string): string {
  return `SMARTSTACK_${kebab(key).replaceAll("-", "_").toUpperCase()}`;
}

/** `dataDir` → `data-dir`, as keys stand in configuration files. */
export function kebab(key: string): string {
  return key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

export function formatSource(source: Source): string {
  switch (source.kind) {
    case "flag":
      return `flag ${source.flag}`;
    case "environment":
      return `environment ${source.name}`;
    case "file":
      return `${source.path}:${source.line}`;
    case "default":
      return "default";
  }
}

/**
 * Pure: what a command runs with.
 * @throws ConfigError with every bad or unknown key
 */
export function resolveConfig<O extends Options>(options: O, given: Given): Resolved<O> {
  const issues: ConfigIssue[] = [...(given.issues ?? [])];
  const file = given.file === undefined ? new Map<string, FileEntry>() : readConfigFile(given.file, options, issues);
  const values: Record<string, unknown> = {};
  const sources: Record<string, Source> = {};
  for (const [key, spec] of Object.entries(options)) {
    const found = findRaw(key, spec, given, file);
    if (found === undefined) {
      values[key] = spec.default;
      sources[key] = { kind: "default" };
      continue;
    }
    sources[key] = found.source;
    const result = spec.kind.schema.safeParse(found.raw);
    if (result.success) {
      values[key] = result.data;
      continue;
    }
    const message =
      found.raw === null
        ? "has no value; leave the line out to take the default"
        : `${result.error.issues[0]?.message ?? "is not valid"}, not ${show(found.raw)}`;
    issues.push({ key: kebab(key), source: formatSource(found.source), message });
  }
  if (issues.length > 0) throw new ConfigError(issues);
  return { values: values as Values<O>, sources: sources as Resolved<O>["sources"] };
}

function findRaw(
  key: string,
  { flagOnly }: Option<unknown>,
  given: Given,
  file: ReadonlyMap<string, FileEntry>,
): { raw: unknown; source: Source } | undefined {
  if (given.flags[key] !== undefined) return { raw: given.flags[key], source: { kind: "flag", flag: flagOf(key) } };
  if (flagOnly) return undefined;
  const name = environmentNameOf(key);
  const variable = given.environment[name];
  // an empty variable is how shells and systemd spell "unset"
  if (variable !== undefined && variable !== "") return { raw: variable, source: { kind: "environment", name } };
  const entry = file.get(key);
  return entry && { raw: entry.raw, source: { kind: "file", path: entry.path, line: entry.line } };
}

type FileEntry = { readonly raw: unknown; readonly path: string; readonly line: number };

function readConfigFile(
  file: { path: string; text: string },
  options: Options,
  issues: ConfigIssue[],
): Map<string, FileEntry> {
  const entries = new Map<string, FileEntry>();
  const lines = new LineCounter();
  const complain = (line: number, message: string, key = "config"): void => {
    issues.push({ key, source: `${file.path}:${line}`, message });
  };
  const document = parseYaml(file.text, lines);
  if (typeof document === "string") {
    complain(1, document);
    return entries;
  }
  const { contents, errors, warnings } = document;
  for (const { message, linePos } of [...errors, ...warnings])
    complain(linePos?.[0].line ?? 1, message.split("\n", 1)[0]?.replace(/ at line .*$/, "") ?? "is not YAML");
  const empty = contents === null || (isScalar(contents) && contents.value === null);
  if (errors.length + warnings.length > 0 || empty) return entries;
  if (!isMap(contents)) {
    complain(1, "must hold keys and values, one a line, such as `log-level: debug`");
    return entries;
  }
  const keys = Object.keys(options).filter((key) => options[key]?.flagOnly === undefined);
  const known = new Map(keys.map((key) => [kebab(key), key]));
  for (const { key: node, value } of contents.items) {
    const name = isScalar(node) ? String(node.value) : String(node);
    const { line } = lines.linePos(node.range[0]);
    const key = known.get(name);
    const raw = rawValue(value);
    if (key === undefined) complain(line, `is not a key of this command${suggest(name, [...known.keys()])}`, name);
    else if (raw === undefined) complain(line, "must be one value or a list of values", name);
    else entries.set(key, { raw, path: file.path, line });
  }
  return entries;
}

/** The parsed document, or why there is none: on a few monsters (deep nesting) the parser throws instead of reporting. */
function parseYaml(text: string, lineCounter: LineCounter): Document.Parsed | string {
  try {
    return parseDocument(text, { lineCounter });
  } catch (error) {
    return `is not YAML: ${describeError(error)}`;
  }
}

/**
 * A scalar as it is written, so that a file means what the same text means in a flag: `1.10` is not 1.1. A list as the
 * list of these, null for `key:` with nothing behind it, undefined for what no option takes: maps and aliases.
 */
function rawValue(node: ParsedNode | null): unknown {
  if (node === null) return null;
  if (isScalar(node)) return node.value !== null && node.type === "PLAIN" ? node.source : node.value;
  if (!isSeq(node)) return undefined;
  const items = node.items.map(rawValue);
  return items.includes(undefined) ? undefined : items;
}

/** `, did you mean X?` for the nearest known name, or nothing. */
export function suggest(name: string, known: readonly string[]): string {
  const best = known
    .map((candidate) => ({ candidate, distance: editDistance(name, candidate) }))
    .sort((a, b) => a.distance - b.distance)[0];
  return best !== undefined && best.distance <= 2 ? `, did you mean ${best.candidate}?` : "";
}

/** Levenshtein's distance, by the usual two rows. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const substitution = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min((previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, substitution));
    }
    previous = row;
  }
  return previous[b.length] ?? 0;
}

/** A value in a message: short, and without the password of a URL. */
function show(raw: unknown): string {
  const shown = JSON.stringify(raw) ?? String(raw);
  const safe = shown.replaceAll(/(:\/\/)[^/@\s"]*@/g, "$1…@");
  return safe.length > 80 ? `${safe.slice(0, 79)}…` : safe;
}

/**
 * Reads the environment and the file named by `--config` or SMARTSTACK_CONFIG, then resolves.
 * @param issues what the command line itself had wrong, told together with the rest
 * @throws ConfigError
 */
export function loadConfig<O extends Options>(
  options: O,
  flags: Given["flags"],
  configFlag: string | undefined,
  issues: readonly ConfigIssue[] = [],
): Resolved<O> {
  const environment = process.env;
  const path = configFlag ?? (environment.SMARTSTACK_CONFIG || undefined);
  if (path === undefined) return resolveConfig(options, { flags, environment, issues });
  const source = configFlag === undefined ? "environment SMARTSTACK_CONFIG" : "flag --config";
  const { file, issues: unreadable = [] } = readConfigText(path, source);
  return resolveConfig(options, { flags, environment, file, issues: [...issues, ...unreadable] });
}

function readConfigText(path: string, source: string): Pick<Given, "file" | "issues"> {
  try {
    return { file: { path, text: readText(path, "config", source) } };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { issues: error.issues };
  }
}

/** Configuration, tokens and certificates are small; whoever names something larger named the wrong thing. */
const MAX_FILE_BYTES = 1_048_576;

/**
 * A file that an option names, as text.
 * @throws ConfigError that names the option, so that a missing file reads like any other bad value
 */
export function readText(path: string, key: string, source: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(readBounded(resolve(path)));
  } catch (error) {
    const reason = error instanceof TypeError ? "is not UTF-8 text" : `cannot be read: ${describeError(error)}`;
    throw new ConfigError([{ key: kebab(key), source, message: `${path} ${reason}` }]);
  }
}

function readBounded(path: string): Uint8Array {
  const file = openSync(path, "r");
  try {
    const buffer = new Uint8Array(MAX_FILE_BYTES + 1);
    let length = 0;
    while (length < buffer.length) {
      const read = readSync(file, buffer, length, buffer.length - length, null);
      if (read === 0) return buffer.subarray(0, length);
      length += read;
    }
    throw new Error("it is larger than 1 MiB");
  } finally {
    closeSync(file);
  }
}

/** The environment, for the few commands that hand it on to a child process. */
export function inheritedEnvironment(): Readonly<Record<string, string | undefined>> {
  return process.env;
}
