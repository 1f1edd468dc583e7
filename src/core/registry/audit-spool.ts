// A bounded queue on disk between those who write audit entries and a store that may be away: nobody waits for it, and
// kill -9 loses nothing. Entries are lines, in files of a MiB that are deleted once all of theirs are stored; after a restart
// the lines of a file that was left are stored again, so storing an entry twice must be the same as once.
//
// Durability: a line is in the kernel before `append` returns, which outlives the process. It is synced to the disk a second
// later, if it still waits then: in good times an entry is stored within milliseconds, and no fsync is ever paid.
import { Database } from "bun:sqlite";
import {
  closeSync,
  fdatasync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { fullJitter } from "../lib/backoff.ts";
import type { Cancel, Clock } from "../lib/clock.ts";
import { describeError, errorCode, Fault } from "../lib/errors.ts";
import type { Logger } from "../lib/logger.ts";

export type AuditSpoolOptions = {
  /** Made when missing; one process at a time. */
  readonly directory: string;
  /** Stores lines, all of them or it throws; then they are offered again. */
  readonly store: (lines: readonly string[]) => Promise<void>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** What may wait on disk. @default 64 MiB */
  readonly maxBytes?: number;
  /** @default 1 MiB */
  readonly segmentBytes?: number;
};

/** One file. `lines` are those that wait; undefined: not in memory, they are read when their turn comes. */
type Segment = { readonly path: string; bytes: number; waiting: number; lines: string[] | undefined };

/** DynamoDB's limit of one BatchWriteItem. */
const BATCH = 25;
const SYNC_AFTER_MS = 1_000;
const RETRY = { baseMs: 100, capMs: 2_000 };
/** How long `close` waits for what is still on its way, in ms. */
const CLOSE_MS = 1_000;

export class AuditSpool {
  readonly #options: Required<AuditSpoolOptions>;
  readonly #closing = new AbortController();
  #lock: Database | undefined;
  /** Oldest first; the last is written to once `#file` is open. */
  #segments: Segment[] = [];
  #file: number | undefined;
  #next = 1;
  #appended = 0;
  #stored = 0;
  #dropped = 0;
  #draining: Promise<void> | undefined;
  #trouble: string | undefined;
  #cancelSync: Cancel | undefined;
  #waiters: { readonly mark: number; readonly resolve: () => void }[] = [];

  constructor(options: AuditSpoolOptions) {
    this.#options = { maxBytes: 64 * 1_048_576, segmentBytes: 1_048_576, ...options };
  }

  /** Takes the directory, and begins to store what an earlier process left. @throws Fault `store_locked`, `store_unreadable` */
  open(): void {
    const { directory } = this.#options;
    try {
      mkdirSync(directory, { recursive: true, mode: 0o700 });
      this.#lock = takeLock(directory);
      const names = readdirSync(directory)
        .filter((name) => /^\d{10}\.jsonl$/.test(name))
        .sort();
      this.#segments = names.map((name) => {
        const path = join(directory, name);
        const text = readFileSync(path, "utf8");
        return { path, bytes: Buffer.byteLength(text), waiting: linesOf(text).length, lines: undefined };
      });
      this.#next = Number(names.at(-1)?.slice(0, 10) ?? 0) + 1;
    } catch (error) {
      this.#lock?.close();
      this.#lock = undefined;
      throw openFault(directory, error);
    }
    this.#appended = this.#segments.reduce((sum, { waiting }) => sum + waiting, 0);
    if (this.#appended > 0) this.#drain();
  }

  /** How many entries wait. */
  get waiting(): number {
    return this.#appended - this.#stored;
  }

  /** How many entries were refused for want of room, or of a disk, since the start. */
  get dropped(): number {
    return this.#dropped;
  }

  /**
   * Queues one line, which must not contain a line break. What was taken is never dropped for what comes later.
   * @throws Fault `spool_full`, `spool_broken`; the line is not queued
   */
  append(line: string): void {
    const bytes = Buffer.from(`${line}\n`);
    try {
      this.#write(bytes);
    } catch (error) {
      this.#dropped += 1;
      if (error instanceof Fault) throw error;
      throw new Fault({ code: "spool_broken", message: "the audit spool cannot be written", cause: error });
    }
    const segment = this.#segments.at(-1);
    if (segment === undefined) throw new Error("a line was written into no file");
    segment.bytes += bytes.length;
    segment.waiting += 1;
    segment.lines?.push(line);
    this.#appended += 1;
    this.#cancelSync ??= this.#options.clock.after(SYNC_AFTER_MS, () => this.#sync());
    this.#drain();
  }

  /** Whether all that was appended so far is stored, waiting for it at most so long. */
  async flushed(timeoutMs: number): Promise<boolean> {
    const mark = this.#appended;
    if (this.#stored >= mark) return true;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const waiter = { mark, resolve: () => resolve(true) };
    this.#waiters.push(waiter);
    const cancel = this.#options.clock.after(timeoutMs, () => resolve(false));
    const flushed = await promise;
    cancel();
    this.#waiters = this.#waiters.filter((other) => other !== waiter);
    return flushed;
  }

  /** Why entries wait, or undefined when they do not. */
  trouble(): string | undefined {
    return this.#trouble;
  }

  /** Stores what it can within a second, and leaves the rest on disk. */
  async close(): Promise<void> {
    if (this.#lock === undefined) return;
    if (this.#trouble === undefined) await this.flushed(CLOSE_MS);
    this.#closing.abort(new Error("Atlas is stopping"));
    await this.#draining;
    this.#cancelSync?.();
    this.#sealActive();
    if (this.waiting === 0) for (const { path } of this.#segments) rmSync(path, { force: true });
    this.#lock.close();
    this.#lock = undefined;
  }

  #write(bytes: Buffer): void {
    const { maxBytes, segmentBytes } = this.#options;
    if (this.#lock === undefined) throw new Fault({ code: "spool_broken", message: "the audit spool is closed" });
    const used = this.#segments.reduce((sum, segment) => sum + segment.bytes, 0);
    if (used + bytes.length > maxBytes) {
      throw new Fault({
        code: "spool_full",
        message: `the audit spool holds ${Math.round(used / 1_048_576)} MiB, and takes no more until DynamoDB is back`,
        hint: "Entries that it does not take are in the log alone.",
      });
    }
    const current = this.#file === undefined ? undefined : this.#segments.at(-1);
    const room = current !== undefined && current.bytes + bytes.length <= segmentBytes;
    const [file, segment] = room && this.#file !== undefined ? [this.#file, current] : this.#begin();
    try {
      if (writeSync(file, bytes) < bytes.length) throw new Error("the disk took only a part of it");
    } catch (error) {
      // half a line would spoil the next one
      ftruncateSync(file, segment.bytes);
      throw error;
    }
  }

  /** Begins a new file: never after what an earlier process may have left half. */
  #begin(): [number, Segment] {
    const path = join(this.#options.directory, `${String(this.#next).padStart(10, "0")}.jsonl`);
    const file = openSync(path, "ax", 0o600);
    this.#sealActive();
    const segment: Segment = { path, bytes: 0, waiting: 0, lines: [] };
    this.#next += 1;
    this.#file = file;
    this.#segments.push(segment);
    return [file, segment];
  }

  #sealActive(): void {
    const file = this.#file;
    if (file === undefined) return;
    this.#file = undefined;
    // only the file whose turn it is stays in memory
    const sealed = this.#segments.at(-1);
    if (sealed !== undefined && sealed !== this.#segments[0]) sealed.lines = undefined;
    fdatasync(file, (error) => {
      if (error !== null) this.#options.logger.warn({ err: error }, "the audit spool could not be synced");
      closeSync(file);
    });
  }

  #sync(): void {
    this.#cancelSync = undefined;
    if (this.#file === undefined || this.waiting === 0) return;
    fdatasync(this.#file, (error) => {
      if (error !== null) this.#options.logger.warn({ err: error }, "the audit spool could not be synced");
    });
  }

  #drain(): void {
    this.#draining ??= this.#storeAll()
      .catch((error: unknown) => {
        if (!this.#closing.signal.aborted) this.#options.logger.error({ err: error }, "the audit spool stopped");
      })
      .finally(() => {
        this.#draining = undefined;
      });
  }

  async #storeAll(): Promise<void> {
    // What is written in the meantime goes together. And a request is milliseconds of work, before which the change that it is
    // about must leave for its watchers: Bun sends to the last sockets of a turn when that is over, which the second turn awaits.
    for (let turn = 0; turn < 2; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    for (let failures = 0; ;) {
      this.#closing.signal.throwIfAborted();
      const head = this.#segments[0];
      if (head === undefined || this.waiting === 0) return;
      head.lines ??= this.#read(head);
      const batch = head.lines.slice(0, BATCH);
      try {
        if (batch.length > 0) await this.#options.store(batch);
      } catch (error) {
        this.#failed(error);
        await this.#options.clock.sleep(fullJitter(failures, RETRY), this.#closing.signal);
        failures += 1;
        continue;
      }
      failures = 0;
      this.#done(head, head.lines, batch.length);
    }
  }

  /** The lines of a file whose turn has come. One that somebody took away is given up. */
  #read(segment: Segment): string[] {
    let lines: string[] = [];
    try {
      lines = linesOf(readFileSync(segment.path, "utf8"));
    } catch (error) {
      this.#options.logger.error({ err: error, lines: segment.waiting }, "audit entries on disk cannot be read");
    }
    this.#dropped += Math.max(0, segment.waiting - lines.length);
    this.#appended += lines.length - segment.waiting;
    segment.waiting = lines.length;
    return lines;
  }

  #failed(error: unknown): void {
    const { logger } = this.#options;
    if (this.#trouble === undefined && !this.#closing.signal.aborted)
      logger.warn({ err: error }, "audit entries wait on disk until they can be stored");
    this.#trouble = describeError(error);
  }

  #done(head: Segment, lines: string[], count: number): void {
    lines.splice(0, count);
    head.waiting -= count;
    this.#stored += count;
    const active = this.#file !== undefined && head === this.#segments.at(-1);
    if (lines.length === 0) {
      if (!active) {
        rmSync(head.path, { force: true });
        this.#segments.shift();
      } else {
        ftruncateSync(this.#file ?? -1, 0);
        head.bytes = 0;
      }
    }
    if (this.#trouble !== undefined && this.waiting === 0) {
      this.#trouble = undefined;
      this.#options.logger.info("the audit entries that waited are stored");
    }
    for (const { mark, resolve } of this.#waiters) if (this.#stored >= mark) resolve();
  }
}

function linesOf(text: string): string[] {
  return text.split("\n").filter((line) => line !== "");
}

/** A lock of the kernel, by way of SQLite: whoever dies, however, releases it. */
function takeLock(directory: string): Database {
  const lock = new Database(join(directory, "lock"), { create: true });
  try {
    lock.run("PRAGMA locking_mode = EXCLUSIVE");
    lock.run("BEGIN EXCLUSIVE; COMMIT");
    return lock;
  } catch (error) {
    lock.close();
    throw error;
  }
}

function openFault(directory: string, cause: unknown): Fault {
  if (errorCode(cause)?.startsWith("SQLITE_BUSY") === true) {
    return new Fault({
      code: "store_locked",
      message: `the audit spool ${directory} is in use by another Atlas`,
      hint: "Stop that one, or give this one a --data-dir of its own.",
      cause,
    });
  }
  return new Fault({
    code: "store_unreadable",
    message: `the audit spool ${directory} cannot be used`,
    hint: "Give --data-dir a directory that this user may read and write, on a disk that is not full.",
    cause,
  });
}
