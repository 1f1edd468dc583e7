// Every subcommand, in the order of `--help`. Each file wires one program; programs themselves are loaded when they run,
// so that `smartstack --version` does not pay for them.
import type { Command } from "./command.ts";

export const commands: readonly Command[] = [];
