// Every subcommand, grouped and in the order of `--help`. Each file wires one program; programs themselves are loaded when
// they run, so that `smartstack --version` does not pay for them: a file named here imports its program inside `run`.
import { agents, forgetAgent } from "./agents.ts";
import { audit } from "./audit.ts";
import { call } from "./call.ts";
import type { Command } from "./command.ts";
import { completion } from "./completion.ts";
import { define } from "./define.ts";
import { atlas } from "./atlas.ts";
import { exportRealm } from "./export.ts";
import { gen } from "./gen.ts";
import { dev } from "./dev.ts";
import { importRealm } from "./import.ts";
import { disable, enable } from "./intent.ts";
import { print } from "./print.ts";
import { ports, releasePort, reservePort } from "./ports.ts";
import { deregister, register } from "./register.ts";
import { services } from "./services.ts";
import { getSettings, setSettings, settingsHistory } from "./settings.ts";
import { sidecar } from "./sidecar.ts";
import { status } from "./status.ts";
import { watch } from "./watch.ts";
import { why } from "./why.ts";
import { serve } from "./serve.ts";
import { test } from "./test.ts";
import { createToken, listTokens, revokeToken } from "./token.ts";

/** Commands under one heading of `smartstack --help`. */
export type CommandGroup = { readonly heading: string; readonly commands: readonly Command[] };

export const commandGroups: readonly CommandGroup[] = [
  { heading: "Programs:", commands: [atlas, sidecar, serve] },
  { heading: "For developers:", commands: [dev, gen, test, call] },
  {
    heading: "For operators:",
    commands: [
      status,
      services,
      agents,
      forgetAgent,
      why,
      watch,
      audit,
      enable,
      disable,
      define,
      register,
      deregister,
      getSettings,
      setSettings,
      settingsHistory,
      ports,
      reservePort,
      releasePort,
      createToken,
      listTokens,
      revokeToken,
      exportRealm,
      importRealm,
    ],
  },
  { heading: "About this program:", commands: [print, completion] },
];

export const commands: readonly Command[] = commandGroups.flatMap((group) => group.commands);
