// Where log lines go: collected in memory, written whole and in order a few times a second. A reader that stalls (a full pipe,
// a dead disk) costs lines, which are counted, never requests.
import { write as writeFd, writeSync } from "node:fs";
import type { Cancel, Clock } from "../core/lib/clock.ts";
import { type Serial, serial } from "../core/lib/serial.ts";

/** How long a line may wait in memory, in ms. */
const FLUSH_MS = 50;
/** A flush begins at once when this many characters wait. */
const FLUSH_LENGTH = 64 * 1024;
/** Beyond this many in memory lines are dropped. */
const MAX_WAITING = 8 * 1024 * 1024;

/** What a sink writes to: an open descriptor, or a file that rotates. */
export interface SinkTarget {
  /** Writes all of it, or throws. */
  write(bytes: Uint8Array): Promise<void>;
  writeSync(bytes: Uint8Array): void;
}

export class LineSink {
  readonly #target: SinkTarget;
  readonly #clock: Clock;
  readonly #onError: (error: unknown) => void;
  readonly #queue: Serial = serial();
  #waiting = "";
  #dropped = 0;
  #timer: Cancel | undefined;
  #writing = false;

  /** @param onError called for every failed write; its lines are lost */
  constructor(target: SinkTarget, clock: Clock, onError: (error: unknown) => void) {
    this.#target = target;
    this.#clock = clock;
    this.#onError = onError;
  }

  /** Takes one line, its line break included. Never throws, never waits. */
  write(line: string): void {
    if (this.#waiting.length + line.length > MAX_WAITING) {
      this.#dropped += 1;
      return;
    }
    this.#waiting += line;
    if (this.#waiting.length >= FLUSH_LENGTH && !this.#writing) void this.flush();
    else this.#timer ??= this.#clock.after(FLUSH_MS, () => void this.flush());
  }

  /** Resolves when everything taken so far is written, or lost. */
  flush(): Promise<void> {
    this.#timer?.();
    this.#timer = undefined;
    this.#writing = true;
    return this.#queue.run(async () => {
      try {
        const bytes = this.#take();
        if (bytes.length > 0) await this.#target.write(bytes);
      } catch (error) {
        this.#onError(error);
      } finally {
        this.#writing = false;
      }
    });
  }

  /** Runs `work` while nothing is being written: to reopen or close what is written to. */
  between(work: () => void): Promise<void> {
    return this.#queue.run(async () => work());
  }

  /** The last words of a process that cannot wait. */
  flushSync(): void {
    try {
      this.#target.writeSync(this.#take());
    } catch (error) {
      this.#onError(error);
    }
  }

  #take(): Uint8Array {
    const note =
      this.#dropped === 0
        ? ""
        : `${JSON.stringify({ level: 40, time: this.#clock.now(), msg: `${this.#dropped} log lines were dropped: they could not be written fast enough` })}\n`;
    const bytes = Buffer.from(this.#waiting + note);
    this.#waiting = "";
    this.#dropped = 0;
    return bytes;
  }
}

/** An open descriptor: 1 is standard output. */
export function descriptorTarget(fd: number): SinkTarget {
  return {
    async write(bytes) {
      for (let done = 0; done < bytes.length;) done += await writeSome(fd, bytes.subarray(done));
    },
    writeSync(bytes) {
      for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes.subarray(done));
    },
  };
}

function writeSome(fd: number, bytes: Uint8Array): Promise<number> {
  return new Promise((resolve, reject) => {
    writeFd(fd, bytes, 0, bytes.length, null, (error, written) => (error === null ? resolve(written) : reject(error)));
  });
}
