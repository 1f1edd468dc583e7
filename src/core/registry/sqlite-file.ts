// The one file of the embedded store: who may open it, what shape it has, and how writes become durable. Everything that
// arrives in one turn of the event loop is one transaction, so a hundred writers share one fsync.
import { Database, SQLiteError } from "bun:sqlite";
import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { describeError, errorCode, Fault } from "../lib/errors.ts";
import { MIGRATIONS, migrate } from "./sqlite-schema.ts";

/** Takes part in every transaction: the live half keeps its state in memory and must follow the outcome. */
export type Participant = {
  /** Last chance to write, just before the commit. */
  prepare(db: Database): void;
  committed(): void;
  rolledBack(): void;
};

type Job = {
  readonly work: (db: Database) => unknown;
  readonly durable: boolean;
  readonly resolve: (value: never) => void;
  readonly reject: (error: unknown) => void;
};

/** @default durable true */
export type WriteOptions = {
  /**
   * Synced to the disk before the promise resolves. Without it a write survives `kill -9` (the kernel has it) but not a
   * power cut, until the next durable write syncs both.
   */
  readonly durable?: boolean;
};

export class SqliteFile {
  readonly path: string;
  readonly #directory: string;
  readonly #participants: Participant[] = [];
  #db: Database | undefined;
  #queue: Job[] = [];
  #scheduled = false;
  #synchronous: "FULL" | "NORMAL" | undefined;
  /** Which files we have open. */
  #inodes = "";
  #trouble: string | undefined;

  constructor(directory: string) {
    this.#directory = directory;
    this.path = join(directory, "atlas.db");
  }

  /**
   * Takes the file for this process, and brings it to this version's shape. The lock is SQLite's own (a lock of the
   * kernel on the open file): a process that dies, however, releases it.
   * @throws Fault `store_locked`, `store_unreadable`, `store_foreign`, `store_newer`
   */
  open(): void {
    if (this.#db !== undefined) return;
    let db: Database | undefined;
    try {
      mkdirSync(this.#directory, { recursive: true, mode: 0o750 });
      db = new Database(this.path, { create: true, readwrite: true, strict: true });
      db.run("PRAGMA locking_mode = EXCLUSIVE");
      db.run("PRAGMA journal_mode = WAL");
      db.run("PRAGMA journal_size_limit = 16777216");
      migrate(db, MIGRATIONS, this.path);
      // the first write takes the lock, which then stays
      db.run("BEGIN EXCLUSIVE; COMMIT");
    } catch (error) {
      db?.close();
      throw this.#openFault(error);
    }
    this.#db = db;
    this.#inodes = this.#inodesOnDisk();
  }

  #openFault(error: unknown): Fault {
    if (error instanceof Fault) return error;
    const code = errorCode(error) ?? "";
    if (code.startsWith("SQLITE_BUSY") || code.startsWith("SQLITE_LOCKED")) {
      return new Fault({
        code: "store_locked",
        message: `the data directory ${this.#directory} is in use by another Atlas`,
        hint: "Stop that one, or give this one a --data-dir of its own.",
        cause: error,
      });
    }
    if (code.startsWith("SQLITE_NOTADB") || code.startsWith("SQLITE_CORRUPT")) {
      return new Fault({
        code: "store_unreadable",
        message: `${this.path} is damaged or no SQLite file`,
        hint: "Restore it from a backup, or move it away to begin with an empty registry.",
        cause: error,
      });
    }
    return new Fault({
      code: "store_unreadable",
      message: `the data directory ${this.#directory} cannot be used`,
      hint: "Give --data-dir a directory that this user may read and write, on a disk that is not full.",
      cause: error,
    });
  }

  join(participant: Participant): void {
    this.#participants.push(participant);
  }

  /** @throws Fault `unavailable` when the file is not open, or cannot be read */
  read<T>(work: (db: Database) => T): T {
    const db = this.#open();
    try {
      return work(db);
    } catch (error) {
      if (!(error instanceof SQLiteError)) throw error;
      throw new Fault({
        code: "unavailable",
        message: `${this.path} cannot be read`,
        hint: "Is the disk broken? Restore it from a backup.",
        cause: error,
      });
    }
  }

  /**
   * Runs `work` in the next transaction. It must decide before it writes: an error that it throws itself reaches only its
   * own caller, an error of SQLite fails the whole transaction.
   * @throws Fault `unavailable` when the transaction could not be committed; nothing of it happened
   */
  write<T>(work: (db: Database) => T, options: WriteOptions = {}): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#queue.push({ work, durable: options.durable ?? true, resolve, reject });
      if (this.#scheduled) return;
      this.#scheduled = true;
      // after this turn's I/O: every request that arrived together shares the fsync
      setImmediate(() => this.#flush());
    });
  }

  /** Why the last transaction failed, until one succeeds. */
  trouble(): string | undefined {
    return this.#trouble;
  }

  /** Writes what is queued, then gives the file back. Safe to call twice. */
  close(): void {
    if (this.#db === undefined) return;
    this.#flush();
    this.#db.close();
    this.#db = undefined;
    this.#synchronous = undefined;
  }

  #open(): Database {
    if (this.#db === undefined) throw new Fault({ code: "unavailable", message: "the store is closed" });
    return this.#db;
  }

  #flush(): void {
    const jobs = this.#queue;
    this.#queue = [];
    this.#scheduled = false;
    if (jobs.length === 0) return;
    const outcomes: (() => void)[] = [];
    try {
      const db = this.#open();
      this.#checkPlace();
      this.#setSynchronous(db, jobs.some(({ durable }) => durable) ? "FULL" : "NORMAL");
      db.run("BEGIN IMMEDIATE");
      for (const job of jobs) outcomes.push(runJob(job, db));
      for (const participant of this.#participants) participant.prepare(db);
      db.run("COMMIT");
      this.#trouble = undefined;
    } catch (error) {
      this.#rollBack(jobs, error);
      return;
    }
    try {
      for (const participant of this.#participants) participant.committed();
    } finally {
      // it is on disk, whatever a listener makes of it
      for (const settle of outcomes) settle();
    }
  }

  /** SQLite writes on into files that were deleted or moved away, and all of it would be gone with this process. */
  #checkPlace(): void {
    if (this.#inodesOnDisk() === this.#inodes) return;
    throw new Fault({
      code: "store_moved",
      message: "the file was deleted, moved or replaced while this Atlas had it open",
      hint: "Put it back, or restart Atlas to begin with what is there now.",
    });
  }

  #inodesOnDisk(): string {
    // the write-ahead log holds the newest transactions
    return [this.path, `${this.path}-wal`].map((path) => statSync(path, { throwIfNoEntry: false })?.ino).join(" ");
  }

  #rollBack(jobs: readonly Job[], error: unknown): void {
    if (this.#db?.inTransaction === true) this.#db.run("ROLLBACK");
    for (const participant of this.#participants) participant.rolledBack();
    this.#trouble = `the store cannot write: ${describeError(error)}`;
    const fault = new Fault({
      code: "unavailable",
      message: `nothing was written, ${this.path} refuses`,
      hint: (error instanceof Fault ? error.hint : undefined) ?? "Is the disk full, or read-only?",
      cause: error,
    });
    for (const job of jobs) job.reject(fault);
  }

  #setSynchronous(db: Database, wanted: "FULL" | "NORMAL"): void {
    if (this.#synchronous === wanted) return;
    db.run(`PRAGMA synchronous = ${wanted}`);
    this.#synchronous = wanted;
  }
}

function runJob(job: Job, db: Database): () => void {
  try {
    const value = job.work(db);
    return () => job.resolve(value as never);
  } catch (error) {
    if (error instanceof SQLiteError) throw error;
    return () => job.reject(error);
  }
}
