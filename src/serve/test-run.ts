// `smartstack test`: a service's tests, run by this very file. BUN_BE_BUN turns it into Bun's test runner; then none of the
// code inside it runs, so the modules that services import are handed over as a file.
import { statSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { Fault } from "../core/lib/errors.ts";
import { COMPILED } from "./self.ts";

export type TestConfig = {
  /** Of the service; everything below it whose name says test is run. */
  readonly directory: string;
  /** Further arguments of Bun's test runner. */
  readonly arguments: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Ends the tests. */
  readonly signal: AbortSignal;
};

/** @returns the test runner's exit code. @throws Fault `config` when there is no such directory */
export async function runTests(config: TestConfig): Promise<number> {
  if (statSync(config.directory, { throwIfNoEntry: false })?.isDirectory() !== true)
    throw new Fault({
      code: "config",
      message: `${config.directory} is no directory`,
      hint: "Name a service's directory.",
    });
  if (!COMPILED) return run(config, join(import.meta.dir, "../core/service/preload.ts"));
  // a directory that nobody else can write to, because what lies in it is run
  const directory = await mkdtemp(join(tmpdir(), "smartstack-test-"));
  try {
    const preload = join(directory, "preload.js");
    await writeFile(preload, await bundledPreload());
    return await run(config, preload);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** The entry `preload.ts`, as the build put it beside this one. Its first line says that bytecode lies there, too. */
async function bundledPreload(): Promise<string> {
  const text = await readFile(join(dirname(import.meta.path), "core/service/preload.js"), "utf8");
  return text.replace(/^\/\/ @bun.*\n/, "");
}

async function run({ directory, arguments: given, environment, signal }: TestConfig, preload: string): Promise<number> {
  const child = Bun.spawn([process.execPath, "test", "--no-install", "--preload", preload, ...given], {
    cwd: resolve(directory),
    // the tests, and what they start, end with this process, however that ends
    env: { ...environment, BUN_BE_BUN: "1", BUN_FEATURE_FLAG_NO_ORPHANS: "1" },
    stdin: "inherit",
    stdout: "inherit",
    stderr: "inherit",
  });
  // a terminal tells the whole group; a supervisor tells this process alone
  const stop = (): void => child.kill("SIGTERM");
  signal.addEventListener("abort", stop, { once: true });
  return child.exited;
}
