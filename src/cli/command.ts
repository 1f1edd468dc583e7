// What a subcommand is: its name, arguments and options as data, and the function that runs it.
import { Fault } from "../core/lib/errors.ts";
import type { Options, Resolved, Values } from "./config.ts";
import type { ExitCode } from "./exit-codes.ts";

/** A positional argument, as it stands in the usage line. */
export type Argument = {
  readonly name: string;
  readonly describe: string;
  readonly optional?: boolean;
  readonly variadic?: boolean;
  /** The only words it can be; anything else is refused, and `completion` offers them. */
  readonly choices?: readonly string[];
};

export type Invocation<O extends Options> = {
  readonly values: Values<O>;
  readonly sources: Resolved<O>["sources"];
  /** Positional arguments before `--`. */
  readonly args: readonly string[];
  /** Everything behind `--`, or undefined when there was none. */
  readonly rest: readonly string[] | undefined;
};

export type Command<O extends Options = Options> = {
  /** `atlas`, or two words for a nested one: `settings get`. */
  readonly name: string;
  readonly summary: string;
  /** Shown under the options in `--help`. */
  readonly examples?: readonly string[];
  readonly arguments?: readonly Argument[];
  /** Accepts `-- COMMAND …`. */
  readonly acceptsRest?: string;
  readonly options: O;
  run(invocation: Invocation<O>): Promise<ExitCode>;
};

/** Keeps the types of the options for `run`. */
export function defineCommand<const O extends Options>(command: Command<O>): Command {
  // the options' types live in `run` alone; the table of commands needs only that there are some
  return command;
}

/** A command line that makes no sense: exit code 2, and where to read how it is meant. */
export function usageError(command: { readonly name: string }, message: string): Fault {
  return new Fault({ code: "usage", message, hint: `See smartstack ${command.name} --help.` });
}
