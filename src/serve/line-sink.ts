// Where log lines go: collected in memory, written whole and in order a few times a second, each line encoded once however
// many places it goes to. A place that stalls (a full pipe, a dead disk) costs its lines, which are counted, never requests.
import { write as writeFd, writeSync } from "node:fs";
import type { Cancel, Clock } from "../core/lib/clock.ts";
import { errorCode } from "../core/lib/errors.ts";
import { type Serial, serial } from "../core/lib/serial.ts";

/** How long a line may wait in memory, in ms. */
const FLUSH_MS = 50;
/** A flush begins at once when this many bytes wait. */
const FLUSH_BYTES = 64 * 1024;
/** Beyond this many unwritten bytes an output drops lines. */
const MAX_BACKLOG = 8 * 1024 * 1024;

/** What an output writes to: an open descriptor, or a file that rotates. */
export interface OutputTarget {
  /** Writes all of it, or throws. */
  write(bytes: Uint8Array): Promise<void>;
  writeSync(bytes: Uint8Array): void;
}

type Chunk = { readonly bytes: Uint8Array; readonly lines: number };

/** One place that lines are written to. */
export class LogOutput {
  readonly #target: OutputTarget;
  readonly #onError: (error: unknown) => void;
  readonly #queue: Serial = serial();
  #backlog: Chunk[] = [];
  #backlogBytes = 0;
  #dropped = 0;

  /** @param onError called for every failed write; its lines are lost */
  constructor(target: OutputTarget, onError: (error: unknown) => void) {
    this.#target = target;
    this.#onError = onError;
  }

  push(chunk: Chunk): void {
    if (this.#backlogBytes + chunk.bytes.length > MAX_BACKLOG) {
      this.#dropped += chunk.lines;
      return;
    }
    this.#backlog.push(chunk);
    this.#backlogBytes += chunk.bytes.length;
    void this.#queue.run(() => this.#writeNext());
  }

  /** Resolves when everything pushed so far is written, or lost. */
  idle(): Promise<void> {
    return this.#queue.idle();
  }

  /** Runs `work` while nothing is being written: to reopen or close what is written to. */
  between(work: () => void): Promise<void> {
    return this.#queue.run(async () => work());
  }

  /** The last words of a process that cannot wait. */
  flushSync(): void {
    try {
      for (const { bytes } of this.#takeAll()) this.#target.writeSync(bytes);
    } catch (error) {
      this.#onError(error);
    }
  }

  async #writeNext(): Promise<void> {
    const chunk = this.#backlog.shift();
    if (chunk === undefined) return;
    try {
      await this.#target.write(chunk.bytes);
      if (this.#dropped > 0) await this.#target.write(this.#note());
    } catch (error) {
      this.#onError(error);
    } finally {
      this.#backlogBytes -= chunk.bytes.length;
    }
  }

  #takeAll(): readonly Chunk[] {
    const all = this.#backlog;
    this.#backlog = [];
    this.#backlogBytes = 0;
    return all;
  }

  #note(): Uint8Array {
    const msg = `${this.#dropped} log lines were dropped: they could not be written fast enough`;
    this.#dropped = 0;
    return Buffer.from(`${JSON.stringify({ level: 40, time: Date.now(), msg })}\n`);
  }
}

/** Collects lines for one or more outputs. */
export class LineSink {
  readonly #outputs: readonly LogOutput[];
  readonly #clock: Clock;
  #waiting: string[] = [];
  #bytes = 0;
  #timer: Cancel | undefined;

  constructor(outputs: readonly LogOutput[], clock: Clock) {
    this.#outputs = outputs;
    this.#clock = clock;
  }

  /** Takes one line, its line break included. Never throws, never waits. */
  write(line: string): void {
    this.#waiting.push(line);
    this.#bytes += line.length;
    if (this.#bytes >= FLUSH_BYTES) this.#push();
    else this.#timer ??= this.#clock.after(FLUSH_MS, () => this.#push());
  }

  /** Resolves when everything taken so far is written, or lost. */
  async flush(): Promise<void> {
    this.#push();
    await Promise.all(this.#outputs.map((output) => output.idle()));
  }

  /** The last words of a process that cannot wait. */
  flushSync(): void {
    this.#push();
    for (const output of this.#outputs) output.flushSync();
  }

  #push(): void {
    this.#timer?.();
    this.#timer = undefined;
    const lines = this.#waiting;
    if (lines.length === 0) return;
    this.#waiting = [];
    this.#bytes = 0;
    const chunk: Chunk = { bytes: Buffer.from(lines.join("")), lines: lines.length };
    for (const output of this.#outputs) output.push(chunk);
  }
}

/** An open descriptor: 1 is standard output. */
export function descriptorTarget(fd: number): OutputTarget {
  return {
    async write(bytes) {
      for (let done = 0; done < bytes.length;) {
        const written = await writeSome(fd, bytes.subarray(done));
        done += written;
        if (written === 0) await new Promise((resolve) => setTimeout(resolve, FULL_MS));
      }
    },
    writeSync(bytes) {
      const end = performance.now() + LAST_WORDS_MS;
      for (let done = 0; done < bytes.length && performance.now() < end;) {
        const written = unlessFull(() => writeSync(fd, bytes.subarray(done)));
        done += written;
        if (written === 0) Bun.sleepSync(FULL_MS);
      }
    },
  };
}

/** How soon a full pipe is tried again, in ms. */
const FULL_MS = 10;
/** How long the last words of a process may take, in ms. */
const LAST_WORDS_MS = 500;

/** Bun's standard output does not block: a pipe whose reader is slow says EAGAIN when it is full. 0 then. */
function unlessFull(write: () => number): number {
  try {
    return write();
  } catch (error) {
    if (errorCode(error) !== "EAGAIN") throw error;
    return 0;
  }
}

function writeSome(fd: number, bytes: Uint8Array): Promise<number> {
  return new Promise((resolve, reject) => {
    writeFd(fd, bytes, 0, bytes.length, null, (error, written) => {
      if (error === null) resolve(written);
      else if (errorCode(error) === "EAGAIN") resolve(0);
      else reject(error);
    });
  });
}
