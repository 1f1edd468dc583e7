// The frame of an end-to-end test: a scenario gets an empty directory and may start programs; when it ends nothing of it is
// left, and when it fails the output of every process it started is printed.
import { test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Finished, freePort, runToEnd, spawn, type Spawned, type SpawnOptions } from "./process.ts";

export {
  BINARY,
  eventually,
  type Finished,
  flags,
  freePort,
  processesOf,
  type Spawned,
  type SpawnOptions,
} from "./process.ts";

/** What a scenario works with; everything it starts or makes is gone when the scenario ends. */
export interface World {
  /** An empty directory of this scenario. */
  readonly directory: string;
  /** A TCP port of loopback that nobody listens on. */
  port(): Promise<number>;
  /** Starts a program that keeps running. */
  spawn(command: readonly string[], options?: SpawnOptions): Spawned;
  /** Runs a program to its end, at most 60 s. */
  run(command: readonly string[], options?: SpawnOptions): Promise<Finished>;
  /** Called at the end, last registered first. */
  defer(cleanup: () => Promise<unknown> | void): void;
}

/** A test of real parts. @param timeoutMs @default 60_000 */
export function scenario(name: string, body: (world: World) => Promise<void>, timeoutMs = 60_000): void {
  test(
    name,
    async () => {
      const spawned: Spawned[] = [];
      const cleanups: (() => Promise<unknown> | void)[] = [];
      const broken: unknown[] = [];
      const directory = await mkdtemp(join(tmpdir(), "smartstack-"));
      const world: World = {
        directory,
        port: freePort,
        spawn(command, options = {}) {
          const child = spawn(command, { cwd: directory, ...options });
          spawned.push(child);
          return child;
        },
        run: (command, options = {}) => runToEnd(command, { cwd: directory, ...options }),
        defer: (cleanup) => cleanups.push(cleanup),
      };
      try {
        await body(world);
      } catch (error) {
        for (const child of spawned) console.error(`--- output of ${child.name} (pid ${child.pid})\n${child.output()}`);
        throw error;
      } finally {
        for (const cleanup of cleanups.reverse()) {
          // one that fails must not leave behind what the others end
          await Promise.try(cleanup).catch((error: unknown) => broken.push(error));
        }
        // last started first: a sidecar ends before the Atlas it reports to
        for (const child of spawned.reverse()) await child.stop();
        await rm(directory, { recursive: true, force: true });
      }
      if (broken.length > 0) throw new AggregateError(broken, "the scenario could not be cleaned up");
    },
    timeoutMs,
  );
}
