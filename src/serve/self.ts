// This program as a program: how to start it again.

/** True inside the compiled file, false when `bun src/main.ts` runs. */
export const COMPILED = import.meta.path.startsWith("/$bunfs/");

/** How to start this program again. */
export function ownCommand(): readonly string[] {
  return COMPILED ? [process.execPath] : [process.execPath, Bun.main];
}

const LIMIT = "BUN_CONFIG_MAX_HTTP_REQUESTS";

/**
 * Lets this process have more than 256 requests in flight, so that one hung service cannot use them up for all others. Bun
 * reads the limit once, when it starts: the process becomes itself again, with the same id, and this returns only there.
 */
export function raiseRequestLimit(environment: Readonly<Record<string, string | undefined>>): void {
  if (environment[LIMIT] !== undefined || !COMPILED) return;
  // not there on Windows; 256 it is then
  process.execve?.(process.execPath, [process.execPath, ...process.argv.slice(2)], {
    ...environment,
    [LIMIT]: "16384",
  });
}
