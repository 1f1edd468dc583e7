// Every subcommand, grouped and in the order of `--help`. Each file wires one program; programs themselves are loaded when
// they run, so that `smartstack --version` does not pay for them: a file named here imports its program inside `run`.
import type { Command } from "./command.ts";
import { atlas } from "./atlas.ts";
import { gen } from "./gen.ts";
import { serve } from "./serve.ts";
import { test } from "./test.ts";

/** Commands under one heading of `smartstack --help`. */
export type CommandGroup = { readonly heading: string; readonly commands: readonly Command[] };

export const commandGroups: readonly CommandGroup[] = [
  { heading: "Programs:", commands: [atlas, serve] },
  { heading: "For developers:", commands: [gen, test] },
  { heading: "For operators:", commands: [] },
  { heading: "About this program:", commands: [] },
];

export const commands: readonly Command[] = commandGroups.flatMap((group) => group.commands);
