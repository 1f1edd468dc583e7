// Named pipes: the two calls that Bun has no API for.
import { dlopen, FFIType } from "bun:ffi";
import { constants, existsSync, lstatSync, openSync, rmSync } from "node:fs";
import { Fault } from "../lib/errors.ts";

/** fcntl command of Linux: F_SETPIPE_SZ. */
const SET_PIPE_SIZE = 1_031;
/** What an unprivileged process may ask for (`fs.pipe-max-size`); the default of 64 KiB holds about 150 lines. */
const PIPE_SIZE = 1_048_576;

/**
 * A descriptor to write to the pipe at `path`, which is made when missing. It also counts as a reader, so that whoever
 * inherits it can write while nobody reads, and is told "full" instead of being killed.
 * @throws Fault `state_dir_failed`
 */
export function openPipeForWriting(path: string): number {
  if (existsSync(path) && !lstatSync(path).isFIFO()) rmSync(path);
  if (!existsSync(path)) {
    // a service manager may give no PATH
    const made = Bun.spawnSync(["/bin/sh", "-c", 'PATH="$PATH:/usr/bin:/bin" exec mkfifo -m 600 "$1"', "sh", path]);
    if (!made.success) {
      throw new Fault({
        code: "state_dir_failed",
        message: `cannot make the named pipe ${path}: ${made.stderr.toString().trim()}`,
        hint: "Is the state directory writable, and on a file system that knows named pipes?",
      });
    }
  }
  return openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
}

/** Gives a pipe room for a burst. Where that is not possible it keeps its size, and a burst loses lines. */
export function enlargePipe(descriptor: number): void {
  if (process.platform !== "linux") return;
  for (const library of ["libc.so.6", "libc.so"]) {
    try {
      const libc = dlopen(library, {
        fcntl: { args: [FFIType.i32, FFIType.i32, FFIType.i32], returns: FFIType.i32 },
      });
      libc.symbols.fcntl(descriptor, SET_PIPE_SIZE, PIPE_SIZE);
      libc.close();
      return;
    } catch (error) {
      // another C library, then; a dlopen that fails throws an Error and nothing else
      if (!(error instanceof Error)) throw error;
    }
  }
}
