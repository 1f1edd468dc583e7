// The command line: the table of commands, turned into commander's, and the way from an error to an exit code.
import { Command as Commander, CommanderError } from "commander";
import { describeError, Fault } from "../core/lib/errors.ts";
import { VERSION } from "../core/lib/version.ts";
import { type Command, usageError } from "./command.ts";
import type { CommandGroup } from "./commands.ts";
import { ConfigError, type ConfigIssue } from "../core/lib/config-error.ts";
import { flagOf, loadConfig, suggest } from "./config.ts";
import { EXIT, type ExitCode, exitCodeOf } from "./exit-codes.ts";
import { formatDefault, type Option } from "./options.ts";
import { guardOutput, outputLost } from "./output.ts";

const SOURCES = `An option is also a variable (--log-level: SMARTSTACK_LOG_LEVEL) and a key of the --config file
(log-level: info). A flag wins over a variable, a variable over the file.`;

/**
 * Runs one command line.
 * @param argv without the program's own name
 * @param groups the commands there are. @default all
 * @returns the exit status; messages went to standard error
 */
export async function run(argv: readonly string[], groups?: readonly CommandGroup[]): Promise<ExitCode> {
  guardOutput();
  let status: ExitCode = EXIT.done;
  const program = createProgram(argv, groups ?? (await loadCommands(argv)), (code) => {
    status = code;
  });
  const { before } = splitRest(argv);
  try {
    await program.parseAsync(before, { from: "user" });
    return outputLost() && status === EXIT.done ? EXIT.failed : status;
  } catch (error) {
    return report(error);
  }
}

/** Building the schemas of all options takes 20 ms: a script that asks for the version need not wait for them. */
async function loadCommands([first]: readonly string[]): Promise<readonly CommandGroup[]> {
  return first === "--version" ? [] : (await import("./commands.ts")).commandGroups;
}

function createProgram(
  argv: readonly string[],
  groups: readonly CommandGroup[],
  onExit: (code: ExitCode) => void,
): Commander {
  const program = quiet(new Commander("smartstack"))
    .description("Everything a small team needs to run HTTP microservices on plain Linux hosts.")
    .usage("COMMAND [options]")
    .version(VERSION, "--version", "print the version")
    .helpOption("-h, --help", "explain this command")
    .addHelpCommand(
      new Commander("help")
        .argument("[COMMAND]")
        .description("explain a command")
        .helpGroup(groups.at(-1)?.heading ?? ""),
    )
    .configureHelp({ subcommandTerm: (command) => command.name() })
    // what stands behind a command is the command's: `register … --version 1.2` is no request for ours
    .enablePositionalOptions()
    .exitOverride()
    .addHelpText("after", "\nsmartstack COMMAND --help explains one command.");
  for (const { heading, commands } of groups) {
    program.commandsGroup(heading);
    for (const command of commands) addCommand(program, command, groups, argv, onExit);
  }
  return program;
}

/** Errors are told by `report`, in one form; commander still prints help by itself. */
function quiet(commander: Commander): Commander {
  return commander.showSuggestionAfterError().configureOutput({ outputError: () => undefined });
}

function addCommand(
  program: Commander,
  command: Command,
  groups: readonly CommandGroup[],
  argv: readonly string[],
  onExit: (code: ExitCode) => void,
): void {
  const [first = "", second] = command.name.split(" ");
  const parent =
    second === undefined
      ? program
      : (program.commands.find((other) => other.name() === first) ?? addGroup(program, first, groups));
  const built = quiet(parent.command(second ?? first))
    .description(command.summary)
    .helpOption("-h, --help", "explain this command")
    .helpCommand(false)
    // unknown flags are collected below, so that all of them are named at once
    .allowUnknownOption()
    .allowExcessArguments()
    .usage(usageOf(command))
    .exitOverride((error) => {
      throw error.exitCode === 0 ? error : usageError(command, error.message.replace(/^error: /, ""));
    });
  for (const { name, describe, choices } of command.arguments ?? [])
    built.argument(`[${name}]`, withChoices(describe, choices));
  for (const [key, option] of Object.entries(command.options)) addOption(built, key, option);
  built.option("--config <FILE>", "read options from this YAML file");
  const examples = command.examples ?? [];
  if (examples.length > 0) built.addHelpText("after", `\nExamples:\n${examples.map((line) => `  ${line}`).join("\n")}`);
  if (Object.keys(command.options).length > 0) built.addHelpText("after", `\n${SOURCES}`);
  built.action(async () => {
    const { before, rest } = splitRest(argv);
    const given = built.opts<Record<string, unknown>>();
    const { args, switched } = splitSwitches(command, built.args);
    const unknown = unknownFlags(command, args);
    // the value of an unknown flag looks like an argument, so arguments say nothing then
    if (unknown.length === 0) checkArguments(command, args, rest);
    checkFlagValues(command, before);
    const flags = Object.fromEntries(Object.keys(command.options).map((key) => [key, rawFlag(key, given)]));
    const { values, sources } = loadConfig(
      command.options,
      { ...flags, ...switched },
      typeof given.config === "string" ? given.config : undefined,
      unknown,
    );
    onExit(await command.run({ values, sources, args, rest }));
  });
}

/** A word that only stands before others: `settings` of `settings get`. */
function addGroup(program: Commander, name: string, groups: readonly CommandGroup[]): Commander {
  const members = groups
    .flatMap(({ commands }) => commands)
    .flatMap((command) => (command.name.startsWith(`${name} `) ? [command.name.slice(name.length + 1)] : []));
  return quiet(program.command(name))
    .description(members.join(", "))
    .usage("COMMAND [options]")
    .helpOption("-h, --help", "explain this command")
    .helpCommand(false)
    .exitOverride();
}

function usageOf(command: Command): string {
  const names = (command.arguments ?? []).map(({ name, optional, variadic }) => {
    const shown = variadic ? `${name}…` : name;
    return optional ? `[${shown}]` : shown;
  });
  return [...names, "[options]", ...(command.acceptsRest === undefined ? [] : [`[-- ${command.acceptsRest}]`])].join(
    " ",
  );
}

function addOption(built: Commander, key: string, option: Option<unknown>): void {
  const { repeatable, choices } = option.kind;
  const short = option.short === undefined ? "" : `-${option.short}, `;
  const placeholder = placeholderOf(key, option);
  const flags = `${short}${flagOf(key)}${placeholder === undefined ? "" : ` <${placeholder}>`}`;
  const shown = formatDefault(option);
  const help = withChoices(option.describe, choices) + (shown === undefined ? "" : ` (default ${shown})`);
  // no default is told to commander: a flag that was not given has no value, and the next source is asked
  if (repeatable)
    built.option(flags, help, (value: string, previous: string[] | undefined) => [...(previous ?? []), value]);
  else built.option(flags, help);
}

function withChoices(describe: string, choices: readonly string[] | undefined): string {
  return choices === undefined ? describe : `${describe}: ${choices.join(", ")}`;
}

/** `LEVEL` for `--log-level trace|debug|…`: the words stand behind, a wide column of flags leaves them no room. */
function placeholderOf(key: string, { kind }: Option<unknown>): string | undefined {
  return kind.choices === undefined ? kind.placeholder : flagOf(key).split("-").at(-1)?.toUpperCase();
}

/** commander turns `--no-git` into `git: false`; everything else keeps its name. */
function rawFlag(key: string, given: Readonly<Record<string, unknown>>): unknown {
  const match = /^no([A-Z])(.*)$/.exec(key);
  if (match === null) return given[key];
  return given[`${match[1]?.toLowerCase()}${match[2]}`] === false ? true : undefined;
}

/** `--json=false` turns a switch off that the environment or a file turned on; commander leaves it among the arguments. */
function splitSwitches(
  command: Command,
  given: readonly string[],
): { args: readonly string[]; switched: Readonly<Record<string, string>> } {
  const args: string[] = [];
  const switched: Record<string, string> = {};
  for (const arg of given) {
    const [flag, value] = arg.split(/=(.*)/s, 2);
    const key = Object.keys(command.options).find((other) => flagOf(other) === flag);
    if (key !== undefined && value !== undefined && command.options[key]?.kind.placeholder === undefined)
      switched[key] = value;
    else args.push(arg);
  }
  return { args, switched };
}

function knownFlags(command: Command): readonly string[] {
  return [...Object.keys(command.options).map(flagOf), "--config", "--help"];
}

function unknownFlags(command: Command, args: readonly string[]): readonly ConfigIssue[] {
  const known = knownFlags(command);
  return args
    .filter((arg) => arg.startsWith("-") && arg !== "-")
    .map((arg) => arg.replace(/=.*$/s, ""))
    .map((flag) => ({
      key: flag.replace(/^-+/, ""),
      source: `flag ${flag}`,
      message: `unknown flag ${flag}${suggest(flag, known)}`,
    }));
}

function checkArguments(command: Command, args: readonly string[], rest: readonly string[] | undefined): void {
  const wanted = command.arguments ?? [];
  const missing = wanted.slice(args.length).filter(({ optional }) => !optional);
  if (missing.length > 0 && rest === undefined)
    throw usageError(command, `missing ${missing.map(({ name }) => name).join(" and ")}`);
  const excess = args[wanted.length];
  if (excess !== undefined && !wanted.some(({ variadic }) => variadic))
    throw usageError(command, `unexpected argument "${excess}"`);
  for (const [index, { name, choices }] of wanted.entries()) {
    const arg = args[index];
    if (choices !== undefined && arg !== undefined && !choices.includes(arg))
      throw usageError(command, `${name} is one of ${choices.join(", ")}, not "${arg}"${suggest(arg, choices)}`);
  }
  if (rest !== undefined && command.acceptsRest === undefined) throw usageError(command, "takes nothing behind --");
}

/** `--reason --wait`: the value was forgotten, and the next flag must not become it. */
function checkFlagValues(command: Command, argv: readonly string[]): void {
  const known = knownFlags(command);
  const valued = Object.entries(command.options).filter(([, { kind }]) => kind.placeholder !== undefined);
  const flags = new Map([
    ["--config", "--config"],
    ...valued.map(([key]) => [flagOf(key), flagOf(key)] as const),
    ...valued.map(([key, { short }]) => [`-${short}`, flagOf(key)] as const),
  ]);
  for (const [index, arg] of argv.entries()) {
    const flag = flags.get(arg);
    const next = argv[index + 1];
    if (flag !== undefined && next !== undefined && known.includes(next))
      throw usageError(command, `${arg} needs a value; if ${next} is meant to be it, write ${flag}=${next}`);
  }
}

function splitRest(argv: readonly string[]): { before: readonly string[]; rest: readonly string[] | undefined } {
  const index = argv.indexOf("--");
  return index < 0 ? { before: argv, rest: undefined } : { before: argv.slice(0, index), rest: argv.slice(index + 1) };
}

function report(error: unknown): ExitCode {
  if (error instanceof CommanderError) {
    // --help and --version end this way too
    if (error.exitCode === 0) return EXIT.done;
    // no command at all: help was printed
    if (error.code === "commander.help") return EXIT.usage;
    const options = error.code === "commander.unknownOption" ? "Options stand behind the command. " : "";
    complain(`smartstack: ${error.message.replace(/^error: /, "")}`, `${options}See smartstack --help.`);
    return EXIT.usage;
  }
  if (error instanceof ConfigError) {
    const { issues } = error;
    complain(
      `smartstack: ${issues.length === 1 ? "a value is" : `${issues.length} values are`} not usable; nothing was started`,
      ...issues.map((issue) => `  ${issue.key} (${issue.source}): ${issue.message}`),
    );
    return EXIT.usage;
  }
  complain(`smartstack: ${describeError(error)}`);
  if (error instanceof Fault && error.hint !== undefined) complain(error.hint);
  // anything not thrown on purpose is our bug: show where
  if (!(error instanceof Fault) && error instanceof Error && error.stack !== undefined) complain(error.stack);
  return exitCodeOf(error);
}

function complain(...lines: readonly string[]): void {
  process.stderr.write(lines.map((line) => `${line}\n`).join(""));
}
