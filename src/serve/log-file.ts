// A log file that several processes append to. Appends of whole lines do not mix (O_APPEND, one write each); rotation is by
// size. Rotated files have names that nobody else can choose, so that even two rotations at once lose nothing; the lock only
// keeps them from happening.
import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Clock } from "../core/lib/clock.ts";
import { errorCode } from "../core/lib/errors.ts";
import { descriptorTarget, type OutputTarget } from "./line-sink.ts";

export type LogFileOptions = {
  readonly path: string;
  /** The file is put aside when it is larger. @default 64 MiB */
  readonly maxBytes?: number;
  /** How many put-aside files stay. @default 8 */
  readonly keep?: number;
};

/** A lock older than this was left by a process that died. */
const STALE_LOCK_MS = 10_000;

// of this process, so that two rotations within a millisecond have two names
let rotations = 0;

export class LogFile implements OutputTarget {
  readonly path: string;
  readonly #maxBytes: number;
  readonly #keep: number;
  readonly #clock: Clock;
  #fd: number;

  /** Opens the file, and makes its directory. @throws the file system's error */
  constructor(options: LogFileOptions, clock: Clock) {
    this.path = options.path;
    this.#maxBytes = options.maxBytes ?? 64 * 1024 * 1024;
    this.#keep = options.keep ?? 8;
    this.#clock = clock;
    this.#fd = openAppending(this.path);
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#follow();
    await descriptorTarget(this.#fd).write(bytes);
    if (fstatSync(this.#fd).size >= this.#maxBytes) this.#rotate();
  }

  writeSync(bytes: Uint8Array): void {
    descriptorTarget(this.#fd).writeSync(bytes);
  }

  /** Opens the path anew, between two writes: after logrotate, or whoever else, moved the file. */
  reopen(): void {
    const next = openAppending(this.path);
    closeSync(this.#fd);
    this.#fd = next;
  }

  close(): void {
    closeSync(this.#fd);
  }

  /** Another instance may have rotated: what it put aside is not to grow any more. */
  #follow(): void {
    if (inodeOf(this.path) !== fstatSync(this.#fd).ino) this.reopen();
  }

  #rotate(): void {
    const lock = `${this.path}.lock`;
    if (!takeLock(lock, this.#clock.now())) return;
    try {
      // someone else may have been faster
      if (inodeOf(this.path) === fstatSync(this.#fd).ino) {
        const stamp = new Date(this.#clock.now()).toISOString().replaceAll(":", "-");
        rotations += 1;
        renameSync(this.path, `${this.path}.${stamp}-${process.pid}.${rotations}`);
        this.#prune();
      }
    } finally {
      rmSync(lock, { force: true });
    }
    this.reopen();
  }

  #prune(): void {
    const prefix = `${basename(this.path)}.2`;
    const old = readdirSync(dirname(this.path))
      .filter((name) => name.startsWith(prefix))
      .sort();
    for (const name of old.slice(0, Math.max(0, old.length - this.#keep)))
      rmSync(join(dirname(this.path), name), { force: true });
  }
}

/** Somebody may have removed the directory, too. */
function openAppending(path: string): number {
  mkdirSync(dirname(path), { recursive: true });
  return openSync(path, constants.O_APPEND | constants.O_CREAT | constants.O_WRONLY, 0o640);
}

function inodeOf(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.ino;
}

/** False when another process has it. */
function takeLock(path: string, now: number): boolean {
  const held = statSync(path, { throwIfNoEntry: false });
  if (held !== undefined && now - held.mtimeMs > STALE_LOCK_MS) rmSync(path, { force: true });
  try {
    const fd = openSync(path, "wx");
    writeSync(fd, `${process.pid}\n`);
    closeSync(fd);
    return true;
  } catch (error) {
    if (errorCode(error) === "EEXIST") return false;
    throw error;
  }
}
