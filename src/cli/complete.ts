// What could be the next word of a command line. Pure; `completion` asks it for every shell.
import type { Argument, Command } from "./command.ts";
import { flagOf } from "./config.ts";
import { type Option, option, path } from "./options.ts";

type Candidate = { readonly word: string; readonly describe: string };

/** Words to choose from, or that the shell knows better: names of files or of directories. */
export type Completion = readonly Candidate[] | "files" | "directories";

const HELP: Candidate = { word: "--help", describe: "explain this command" };
const VERSION: Candidate = { word: "--version", describe: "print the version" };
const CONFIG_OPTION = option(path(), "read options from this YAML file");
const CONFIG: Candidate = { word: "--config", describe: CONFIG_OPTION.describe };

/** @param words behind the program's name, up to the cursor: the last one is being typed and may be empty */
export function complete(commands: readonly Command[], words: readonly string[]): Completion {
  const typed = words.at(-1) ?? "";
  const before = words.slice(0, -1);
  // what stands behind -- is another program's command line
  if (before.includes("--")) return "files";
  const line = readLine(commands, before);
  if (line.pending !== undefined) return valuesOf(line.pending, "");
  const [flag, value] = typed.split(/=(.*)/s, 2);
  if (flag !== undefined && value !== undefined) {
    const option = line.command && optionOf(line.command, flag);
    return option === undefined ? [] : valuesOf(option, `${flag}=`);
  }
  const inner = subcommands(commands, line.path);
  const offered = typed.startsWith("-")
    ? flagsOf(line)
    : [...(line.args === 0 ? inner : []), ...argumentsOf(line.command, line.args)];
  const matching = offered.filter(({ word }) => word.startsWith(typed));
  const argument = argumentAt(line.command, line.args);
  return matching.length === 0 && argument !== undefined && !typed.startsWith("-") ? filesOf(argument.name) : matching;
}

type Line = {
  /** The words of the command so far: `settings set`. */
  readonly path: string;
  readonly command: Command | undefined;
  /** How many arguments stand there already. */
  readonly args: number;
  readonly given: ReadonlySet<string>;
  /** The option whose value comes next. */
  readonly pending: Option<unknown> | undefined;
};

function readLine(commands: readonly Command[], words: readonly string[]): Line {
  let path = "";
  let args = 0;
  let pending: Option<unknown> | undefined;
  const given = new Set<string>();
  const find = (name: string): Command | undefined => commands.find((command) => command.name === name);
  for (const word of words) {
    if (pending !== undefined) {
      pending = undefined;
      continue;
    }
    if (word.startsWith("-")) {
      given.add(word.replace(/=.*$/s, ""));
      const option = find(path) && optionOf(find(path), word);
      if (option?.kind.placeholder !== undefined) pending = option;
      continue;
    }
    const longer = path === "" ? word : `${path} ${word}`;
    const known = commands.some(({ name }) => name === longer || name.startsWith(`${longer} `));
    if (known && args === 0) path = longer;
    else args += 1;
  }
  return { path, command: find(path), args, given, pending };
}

function subcommands(commands: readonly Command[], path: string): readonly Candidate[] {
  const depth = path === "" ? 0 : path.split(" ").length;
  const found = new Map<string, string>();
  for (const { name, summary } of commands) {
    const parts = name.split(" ");
    const next = parts[depth];
    if (next === undefined || (path !== "" && !name.startsWith(`${path} `))) continue;
    // a group has no summary of its own
    if (parts.length === depth + 1) found.set(next, summary);
    else if (!found.has(next)) found.set(next, `${next} …`);
  }
  if (path === "") found.set("help", "explain a command");
  return [...found].map(([word, describe]) => ({ word, describe }));
}

function optionOf(command: Command | undefined, flag: string): Option<unknown> | undefined {
  if (flag === "--config") return CONFIG_OPTION;
  const options = Object.entries(command?.options ?? {});
  return options.find(([key, { short }]) => flagOf(key) === flag || (short !== undefined && flag === `-${short}`))?.[1];
}

function flagsOf({ command, path, given }: Line): readonly Candidate[] {
  if (command === undefined) return path === "" ? [HELP, VERSION] : [HELP];
  const own = Object.entries(command.options)
    .filter(([key, { kind }]) => kind.repeatable === true || !given.has(flagOf(key)))
    .map(([key, { describe }]) => ({ word: flagOf(key), describe }));
  return [...own, ...(given.has("--config") ? [] : [CONFIG]), HELP];
}

function argumentAt(command: Command | undefined, index: number): Argument | undefined {
  const wanted = command?.arguments ?? [];
  const last = wanted.at(-1);
  return wanted[index] ?? (last?.variadic === true ? last : undefined);
}

function argumentsOf(command: Command | undefined, index: number): readonly Candidate[] {
  const argument = argumentAt(command, index);
  return (argument?.choices ?? []).map((word) => ({ word, describe: argument?.describe ?? "" }));
}

function valuesOf({ kind, describe }: Pick<Option<unknown>, "kind" | "describe">, prefix: string): Completion {
  if (kind.choices !== undefined) return kind.choices.map((word) => ({ word: prefix + word, describe }));
  // a shell completes `--file=` by itself or not at all
  return prefix === "" ? filesOf(kind.placeholder ?? "") : [];
}

/** Arguments and values that are paths are called so. */
function filesOf(name: string): Completion {
  if (/FILE|PATH|SOCKET/.test(name)) return "files";
  return name.includes("DIR") ? "directories" : [];
}
