// The command line: the table of commands, turned into commander's, and the way from an error to an exit code.
import { Command as Commander, CommanderError } from "commander";
import { describeError, Fault } from "../core/lib/errors.ts";
import { VERSION } from "../core/lib/version.ts";
import type { Command } from "./command.ts";
import { commandGroups } from "./commands.ts";
import { ConfigError, environmentNameOf, flagOf, loadConfig, suggest } from "./config.ts";
import { EXIT, type ExitCode, exitCodeOf } from "./exit-codes.ts";
import type { Option } from "./options.ts";

/**
 * Runs one command line.
 * @param argv without the program's own name
 * @returns the exit status; messages went to standard error
 */
export async function run(argv: readonly string[]): Promise<ExitCode> {
  const { before, rest } = splitRest(argv);
  let status: ExitCode = EXIT.done;
  const program = createProgram(rest, (code) => {
    status = code;
  });
  try {
    await program.parseAsync(before, { from: "user" });
    return status;
  } catch (error) {
    return report(error);
  }
}

/** commander's tree of the whole command line; `completion` walks it too. */
export function createProgram(rest: readonly string[] | undefined, onExit: (code: ExitCode) => void): Commander {
  const program = new Commander("smartstack")
    .description("Everything a small team needs to run HTTP microservices on plain Linux hosts.")
    .version(VERSION, "--version", "print the version")
    .helpCommand(false)
    .exitOverride()
    .showSuggestionAfterError()
    .configureOutput({ writeErr: () => undefined });
  for (const { heading, commands } of commandGroups) {
    program.commandsGroup(heading);
    for (const command of commands) addCommand(program, command, rest, onExit);
  }
  return program;
}

function addCommand(
  program: Commander,
  command: Command,
  rest: readonly string[] | undefined,
  onExit: (code: ExitCode) => void,
): void {
  const [first = "", second] = command.name.split(" ");
  const parent =
    second === undefined
      ? program
      : (program.commands.find((other) => other.name() === first) ?? addGroup(program, first));
  const built = parent
    .command(second ?? first)
    .description(command.summary)
    .exitOverride()
    .configureOutput({ writeErr: () => undefined })
    // unknown flags are collected below, so that all of them are named at once
    .allowUnknownOption()
    .allowExcessArguments()
    .usage(usageOf(command))
    .option("--config <FILE>", "read options from this YAML file (environment SMARTSTACK_CONFIG)");
  for (const [key, option] of Object.entries(command.options)) addOption(built, key, option);
  const examples = command.examples ?? [];
  if (examples.length > 0) built.addHelpText("after", `\nExamples:\n${examples.map((line) => `  ${line}`).join("\n")}`);
  built.action(async () => {
    const given = built.opts<Record<string, unknown>>();
    const flags = Object.fromEntries(Object.keys(command.options).map((key) => [key, rawFlag(key, given)]));
    checkArguments(command, built.args, rest);
    const { values, sources } = loadConfig(
      command.options,
      flags,
      typeof given.config === "string" ? given.config : undefined,
    );
    onExit(await command.run({ values, sources, args: built.args, rest }));
  });
}

function addGroup(program: Commander, name: string): Commander {
  return program
    .command(name)
    .description(`${name} …`)
    .exitOverride()
    .configureOutput({ writeErr: () => undefined });
}

function usageOf(command: Command): string {
  const names = (command.arguments ?? []).map(({ name, optional, variadic }) => {
    const shown = variadic ? `${name}…` : name;
    return optional ? `[${shown}]` : shown;
  });
  return ["[options]", ...names, ...(command.acceptsRest === undefined ? [] : [`[-- ${command.acceptsRest}]`])].join(
    " ",
  );
}

function addOption(built: Commander, key: string, option: Option<unknown>): void {
  const { placeholder, repeatable } = option.kind;
  const short = option.short === undefined ? "" : `-${option.short}, `;
  const flags = `${short}${flagOf(key)}${placeholder === undefined ? "" : ` <${placeholder}>`}`;
  const shown =
    option.default === undefined || option.default === false ? "" : `, default ${formatDefault(option.default)}`;
  const help = `${option.describe} (${environmentNameOf(key)}${shown})`;
  // no default is told to commander: a flag that was not given has no value, and the next source is asked
  if (repeatable)
    built.option(flags, help, (value: string, previous: string[] | undefined) => [...(previous ?? []), value]);
  else built.option(flags, help);
}

function formatDefault(value: unknown): string {
  if (Array.isArray(value)) return value.join(",");
  if (typeof value === "object" && value !== null && "host" in value && "port" in value)
    return `${String(value.host)}:${String(value.port)}`;
  return String(value);
}

/** commander turns `--no-git` into `git: false`; everything else keeps its name. */
function rawFlag(key: string, given: Readonly<Record<string, unknown>>): unknown {
  const match = /^no([A-Z])(.*)$/.exec(key);
  if (match === null) return given[key];
  return given[`${match[1]?.toLowerCase()}${match[2]}`] === false ? true : undefined;
}

function checkArguments(command: Command, args: readonly string[], rest: readonly string[] | undefined): void {
  const unknown = args.filter((arg) => arg.startsWith("-") && arg !== "-");
  const known = [...Object.keys(command.options).map(flagOf), "--config", "--help"];
  if (unknown.length > 0) {
    throw usageError(
      command,
      unknown.map((flag) => `unknown flag ${flag}${suggest(flag.replace(/=.*$/, ""), known)}`).join("\n"),
    );
  }
  const wanted = command.arguments ?? [];
  const missing = wanted.slice(args.length).filter(({ optional }) => !optional);
  if (missing.length > 0 && rest === undefined)
    throw usageError(command, `missing ${missing.map(({ name }) => name).join(" and ")}`);
  if (args.length > wanted.length && !wanted.some(({ variadic }) => variadic))
    throw usageError(command, `unexpected argument "${args[wanted.length] ?? ""}"`);
  if (rest !== undefined && command.acceptsRest === undefined) throw usageError(command, "takes nothing behind --");
}

/** A command line that makes no sense: exit code 2, and where to read how it is meant. */
export function usageError(command: { readonly name: string }, message: string): Fault {
  return new Fault({ code: "usage", message, hint: `See smartstack ${command.name} --help.` });
}

function splitRest(argv: readonly string[]): { before: readonly string[]; rest: readonly string[] | undefined } {
  const index = argv.indexOf("--");
  return index < 0 ? { before: argv, rest: undefined } : { before: argv.slice(0, index), rest: argv.slice(index + 1) };
}

function report(error: unknown): ExitCode {
  if (error instanceof CommanderError) {
    // --help and --version end this way too
    if (error.exitCode === 0) return EXIT.done;
    if (error.code === "commander.help") return EXIT.usage;
    console.error(`smartstack: ${error.message.replace(/^error: /, "")}\nSee smartstack --help.`);
    return EXIT.usage;
  }
  if (error instanceof ConfigError) {
    const { issues } = error;
    console.error(
      `smartstack: ${issues.length === 1 ? "a value is" : `${issues.length} values are`} not usable; nothing was started`,
    );
    for (const issue of issues) console.error(`  ${issue.key} (${issue.source}): ${issue.message}`);
    return EXIT.usage;
  }
  console.error(`smartstack: ${describeError(error)}`);
  if (error instanceof Fault && error.hint !== undefined) console.error(error.hint);
  // anything not thrown on purpose is our bug: show where
  if (!(error instanceof Fault) && error instanceof Error && error.stack !== undefined) console.error(error.stack);
  return exitCodeOf(error);
}
