// For tests: one command line run in this process, with what it printed.
import { spyOn } from "bun:test";
import { commandGroups, type CommandGroup } from "./commands.ts";
import { run } from "./index.ts";

export type Captured = { readonly code: number; readonly stdout: string; readonly stderr: string };

/** Runs `smartstack …argv`. */
export async function capture(
  argv: readonly string[],
  groups: readonly CommandGroup[] = commandGroups,
): Promise<Captured> {
  const written = { stdout: "", stderr: "" };
  const spies = (["stdout", "stderr"] as const).map((name) =>
    spyOn(process[name], "write").mockImplementation((chunk) => {
      written[name] += typeof chunk === "string" ? chunk : new TextDecoder().decode(chunk);
      return true;
    }),
  );
  try {
    return { code: await run(argv, groups), ...written };
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
}
