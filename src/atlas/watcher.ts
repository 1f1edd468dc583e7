// One open stream, and how much of it may wait in our memory for a reader that does not read.
import type { Clock } from "../core/lib/clock.ts";
import { formatSse } from "../core/lib/sse.ts";

/** Beyond its first event, this much unsent is too much; the kernel's own buffers (a few MB) come before. */
const MAX_UNSENT_BYTES = 1_048_576;
/** Unsent bytes for this long, however few, and the reader is cut off too. */
const MAX_STALLED_MS = 30_000;

export type WatcherOptions = {
  readonly clock: Clock;
  readonly first: Uint8Array;
  /** Called once, whoever ended the stream. */
  readonly onEnd: (reason: string) => void;
};

export class Watcher {
  /** The body of the response. */
  readonly body: ReadableStream<Uint8Array>;
  readonly #clock: Clock;
  readonly #onEnd: (reason: string) => void;
  readonly #limit: number;
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  #stalledSince: number | undefined;

  constructor({ clock, first, onEnd }: WatcherOptions) {
    this.#clock = clock;
    this.#onEnd = onEnd;
    this.#limit = MAX_UNSENT_BYTES + first.byteLength;
    this.body = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller;
          controller.enqueue(first);
        },
        cancel: () => this.#ended("the reader went away"),
      },
      // nothing may wait: what the socket does not take counts as unsent
      new ByteLengthQueuingStrategy({ highWaterMark: 0 }),
    );
  }

  send(bytes: Uint8Array): void {
    const controller = this.#controller;
    if (controller === undefined) return;
    const unsent = -(controller.desiredSize ?? 0);
    if (unsent <= 0) this.#stalledSince = undefined;
    else {
      this.#stalledSince ??= this.#clock.now();
      const stalledMs = this.#clock.now() - this.#stalledSince;
      if (unsent + bytes.byteLength > this.#limit || stalledMs > MAX_STALLED_MS) {
        this.#cut(`too slow: ${unsent} bytes unsent for ${Math.round(stalledMs / 1_000)} s`);
        return;
      }
    }
    controller.enqueue(bytes);
  }

  /** Ends the stream in order, with a last event that says why. */
  end(reason: string): void {
    const controller = this.#controller;
    if (controller === undefined) return;
    this.#controller = undefined;
    controller.enqueue(new TextEncoder().encode(formatSse({ event: "end", data: { reason } })));
    controller.close();
    this.#onEnd(reason);
  }

  /** The connection is gone already. */
  gone(): void {
    this.#ended("the reader went away");
  }

  /** Drops what is unsent; a reader that does not read cannot be told why, the log can. */
  #cut(reason: string): void {
    const controller = this.#controller;
    this.#controller = undefined;
    controller?.error(new Error(reason));
    this.#onEnd(reason);
  }

  #ended(reason: string): void {
    if (this.#controller === undefined) return;
    this.#controller = undefined;
    this.#onEnd(reason);
  }
}
