// One sidecar per state directory. The lock is the kernel's (through SQLite's exclusive transaction), so it is gone with the
// process, however that ends; a file with a pid would outlive a kill -9 and lie.
import { Database } from "bun:sqlite";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { errorCode, Fault } from "../core/lib/errors.ts";

export interface StateLock {
  release(): void;
}

/** A database that nothing refers to is closed by the garbage collector, and its lock is gone. */
const held = new Set<Database>();

/**
 * Makes the state directory if need be, and claims it.
 * @throws Fault `state_dir_in_use` while another sidecar lives there, `state_dir` when it cannot be written
 */
export async function lockStateDirectory(directory: string): Promise<StateLock> {
  try {
    await mkdir(directory, { recursive: true, mode: 0o755 });
  } catch (error) {
    throw unusable(directory, error);
  }
  let database: Database;
  try {
    database = new Database(join(directory, "sidecar.lock"), { create: true });
  } catch (error) {
    throw unusable(directory, error);
  }
  try {
    database.run("PRAGMA busy_timeout = 0");
    // no journal file: nothing is ever written, only locked
    database.run("PRAGMA journal_mode = OFF");
    database.run("BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    if (errorCode(error)?.startsWith("SQLITE_BUSY") !== true) throw unusable(directory, error);
    throw new Fault({
      code: "state_dir_in_use",
      message: `another sidecar uses ${directory}`,
      hint: "One sidecar serves a whole host. If you do want a second one, give it its own --state-dir, --bind, --admin and --host.",
      cause: error,
    });
  }
  held.add(database);
  return {
    release() {
      if (!held.delete(database)) return;
      database.run("ROLLBACK");
      database.close();
    },
  };
}

function unusable(directory: string, cause: unknown): Fault {
  return new Fault({
    code: "state_dir",
    message: `the state directory ${directory} cannot be used`,
    hint: "It must be a directory that this user can write. Say another one with --state-dir.",
    cause,
  });
}
