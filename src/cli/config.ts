// From flags, environment and a configuration file to the values a command runs with, each with where it came from.
// Precedence: flag > environment > file > default. The one place of the command line that reads process.env.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { isMap, isScalar, LineCounter, parseDocument } from "yaml";
import { describeError, Fault } from "../core/lib/errors.ts";
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
};

/** One thing wrong with the configuration. */
export type ConfigIssue = { readonly key: string; readonly source: string; readonly message: string };

/** Everything wrong with a command's configuration, at once. */
export class ConfigError extends Fault {
  readonly issues: readonly ConfigIssue[];

  constructor(issues: readonly ConfigIssue[]) {
    super({
      code: "config",
      message: issues.map(({ key, source, message }) => `${key} (${source}): ${message}`).join("\n"),
    });
    this.issues = issues;
  }
}

/** `dataDir` → `--data-dir`. */
export function flagOf(key: string): string {
  return `--${kebab(key)}`;
}

/** `dataDir` → `SMARTSTACK_DATA_DIR`. */
export function environmentNameOf(key: string): string {
  return `SMARTSTACK_${kebab(key).replaceAll("-", "_").toUpperCase()}`;
}

function kebab(key: string): string {
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
  const issues: ConfigIssue[] = [];
  const file = given.file === undefined ? new Map<string, FileEntry>() : readConfigFile(given.file, options, issues);
  const values: Record<string, unknown> = {};
  const sources: Record<string, Source> = {};
  for (const [key, spec] of Object.entries(options)) {
    const found = findRaw(key, given, file);
    if (found === undefined) {
      values[key] = spec.default;
      sources[key] = { kind: "default" };
      continue;
    }
    const result = spec.kind.schema.safeParse(found.raw);
    if (result.success) values[key] = result.data;
    else
      issues.push({
        key: kebab(key),
        source: formatSource(found.source),
        message: `${result.error.issues[0]?.message ?? "is not valid"}, not ${show(found.raw)}`,
      });
    sources[key] = found.source;
  }
  if (issues.length > 0) throw new ConfigError(issues);
  return { values: values as Values<O>, sources: sources as Resolved<O>["sources"] };
}

function findRaw(
  key: string,
  given: Given,
  file: ReadonlyMap<string, FileEntry>,
): { raw: unknown; source: Source } | undefined {
  if (given.flags[key] !== undefined) return { raw: given.flags[key], source: { kind: "flag", flag: flagOf(key) } };
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
  const lines = new LineCounter();
  const document = parseDocument(file.text, { lineCounter: lines });
  const entries = new Map<string, FileEntry>();
  for (const error of document.errors) {
    issues.push({
      key: "config",
      source: `${file.path}:${error.linePos?.[0].line ?? 1}`,
      message: error.message.split("\n")[0] ?? "is not YAML",
    });
  }
  if (issues.length > 0 || document.contents === null) return entries;
  if (!isMap(document.contents)) {
    issues.push({ key: "config", source: `${file.path}:1`, message: "must hold keys and values, one a line" });
    return entries;
  }
  const known = new Map(Object.keys(options).map((key) => [kebab(key), key]));
  for (const pair of document.contents.items) {
    const name = isScalar(pair.key) ? String(pair.key.value) : String(pair.key);
    const offset = isScalar(pair.key) ? pair.key.range?.[0] : undefined;
    const line = lines.linePos(offset ?? 0).line;
    const key = known.get(name);
    if (key === undefined)
      issues.push({
        key: name,
        source: `${file.path}:${line}`,
        message: `is not a key of this command${suggest(name, [...known.keys()])}`,
      });
    else entries.set(key, { raw: document.toJS()[name], path: file.path, line });
  }
  return entries;
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

function show(raw: unknown): string {
  const shown = typeof raw === "string" ? `"${raw}"` : JSON.stringify(raw);
  return shown.length > 80 ? `${shown.slice(0, 79)}…` : shown;
}

/**
 * Reads the environment and the file named by `--config` or SMARTSTACK_CONFIG, then resolves.
 * @throws ConfigError
 */
export function loadConfig<O extends Options>(
  options: O,
  flags: Given["flags"],
  configFlag: string | undefined,
): Resolved<O> {
  const environment = process.env;
  const path = configFlag ?? (environment.SMARTSTACK_CONFIG || undefined);
  if (path === undefined) return resolveConfig(options, { flags, environment });
  return resolveConfig(options, {
    flags,
    environment,
    file: {
      path,
      text: readText(path, "config", configFlag === undefined ? "environment SMARTSTACK_CONFIG" : "flag --config"),
    },
  });
}

/**
 * A file that an option names, as text.
 * @throws ConfigError that names the option, so that a missing file reads like any other bad value
 */
export function readText(path: string, key: string, source: string): string {
  try {
    return readFileSync(resolve(path), "utf8");
  } catch (error) {
    throw new ConfigError([{ key, source, message: `cannot be read: ${describeError(error)}` }]);
  }
}

/** The environment, for the few commands that hand it on to a child process. */
export function inheritedEnvironment(): Readonly<Record<string, string | undefined>> {
  return process.env;
}
