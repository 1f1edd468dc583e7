// Every option of every command as documents: the commented configuration files in config/, and the tables of docs/config.md.
// Both are kept in the repository for readers; a test holds them to what is made here.
import { join } from "node:path";
import { stringify } from "yaml";
import type { Command } from "./command.ts";
import { environmentNameOf, flagOf, kebab, type Options } from "./config.ts";
import { defaultHost, defaultStateDirectory, formatDefault, type Option } from "./options.ts";

/** Programs that have a configuration file of their own in config/. */
export const CONFIGURABLE = ["atlas", "sidecar", "serve"] as const;

/**
 * The commented configuration file of a command: `#key: value` is an option at its default (or an example, where it
 * has none), everything behind `# ` is for people.
 */
export function configFile({ name, summary, options }: Command): string {
  const blocks = Object.entries(options).map(([key, option]) => {
    const value = defaultOf(option);
    const words = option.kind.choices === undefined ? "" : `: ${option.kind.choices.join(", ")}`;
    const note =
      value === undefined ? [`# ${isMachineName(option) ? "This machine's name" : "No default"}; an example:`] : [];
    const lines = wrap(option.describe + words, 98).map((line) => `# ${line}`);
    return [...lines, ...note, `#${kebab(key)}: ${yamlOf(value ?? exampleOf(option))}`].join("\n");
  });
  const head = [
    `# smartstack ${name}: ${summary}`,
    "#",
    `# smartstack ${name} --config FILE reads this. Every option is here at its default; to change one, take away the # in`,
    `# front of its key. A flag (--log-level) and a variable (SMARTSTACK_LOG_LEVEL) win over this file.`,
  ].join("\n");
  return `${[head, ...blocks].join("\n\n")}\n`;
}

/** The options of every command as tables of Markdown. */
export function optionTables(commands: readonly Command[]): string {
  const sections = commands
    .filter(({ options }) => Object.keys(options).length > 0)
    .map(({ name, summary, options }) => `### smartstack ${name}\n\n${capital(summary)}.\n\n${tableOf(options)}`);
  return `${sections.join("\n\n")}\n`;
}

function tableOf(options: Options): string {
  const rows = Object.entries(options).map(([key, option]) => {
    const { kind, describe, short, flagOnly } = option;
    const takes = kind.choices?.join("\\|") ?? kind.placeholder?.replaceAll("|", "\\|");
    const flag = `\`${short === undefined ? "" : `-${short}, `}${flagOf(key)}${takes === undefined ? "" : ` ${takes}`}\``;
    const value = defaultOf(option);
    const shown = value === undefined || value === false || value === "" ? "" : `\`${String(value)}\``;
    const fallback = isMachineName(option) ? "this machine's name" : shown;
    const variable = flagOnly ? "" : `\`${environmentNameOf(key)}\``;
    return `| ${flag} | ${variable} | ${fallback} | ${describe.replaceAll("|", "\\|")} |`;
  });
  return ["| flag | variable | default | meaning |", "|---|---|---|---|", ...rows].join("\n");
}

/** An option's default as root has it on any machine, or undefined when it has none that is the same everywhere. */
function defaultOf(option: Option<unknown>): string | number | boolean | undefined {
  const { default: value } = option;
  if (typeof value === "boolean" || typeof value === "number") {
    return option.kind.format === undefined ? value : formatDefault(option);
  }
  if (isMachineName(option)) return undefined;
  if (value === "") return "";
  const shown = formatDefault(option);
  const state = defaultStateDirectory();
  return shown
    ?.replace(new RegExp(`^${RegExp.escape(join(state, "log"))}(?=/|$)`), "/var/log/smartstack")
    .replace(new RegExp(`^${RegExp.escape(state)}(?=/|$)`), "/var/lib/smartstack");
}

function isMachineName({ default: value }: Option<unknown>): boolean {
  return value === defaultHost();
}

function exampleOf({ kind }: Option<unknown>): string {
  return kind.example ?? kind.placeholder ?? "";
}

/** A scalar as YAML, quoted only where it would end early: the configuration reads plain scalars as they are written. */
function yamlOf(value: string | number | boolean): string {
  const text = String(value);
  return /^[\w./:=-]+$/.test(text) && !text.endsWith(":") ? text : stringify(text, { lineWidth: 0 }).trimEnd();
}

function wrap(text: string, width: number): readonly string[] {
  return text.split(" ").reduce<string[]>((lines, word) => {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
    return lines;
  }, []);
}

function capital(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}
