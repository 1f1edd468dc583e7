// One open stream, and how much of it may wait in our memory for a reader that does not read.
import type { Clock } from "../core/lib/clock.ts";
import { describeError } from "../core/lib/errors.ts";
import { formatSse } from "../core/lib/sse.ts";

/** Beyond its first event, this much unsent is too much; the kernel's own buffers (a few MB) come before. */
const MAX_UNSENT_BYTES = 1_048_576;
/** Unsent bytes for this long, however few, and the reader is cut off too. */
const MAX_STALLED_MS = 30_000;

const encoder = new TextEncoder();
/** Nothing may wait: what the socket does not take counts as unsent. */
const STRATEGY = new ByteLengthQueuingStrategy({ highWaterMark: 0 });

/** How a stream ended: its reader went, the reader was too slow, or Atlas had a reason. */
export type StreamEnd = { readonly by: "reader" | "slow" | "atlas"; readonly reason: string };

export type WatcherOptions = {
  readonly clock: Clock;
  readonly first: Uint8Array;
  /** Called once, whoever ended the stream. */
  readonly onEnd: (end: StreamEnd) => void;
};

export class Watcher {
  /** The body of the response. */
  readonly body: ReadableStream<Uint8Array>;
  readonly #clock: Clock;
  readonly #onEnd: (end: StreamEnd) => void;
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
        cancel: () => {
          if (this.#controller === undefined) return;
          this.#controller = undefined;
          onEnd({ by: "reader", reason: "the reader went away" });
        },
      },
      STRATEGY,
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
        this.#cut(`${unsent} bytes were unsent for ${Math.round(stalledMs / 1_000)} s`);
        return;
      }
    }
    this.#push(controller, bytes);
  }

  /** Ends the stream in order, with a last event that says why. */
  end(reason: string): void {
    const controller = this.#controller;
    if (controller === undefined) return;
    if (!this.#push(controller, encoder.encode(formatSse({ event: "end", data: { reason } })))) return;
    this.#controller = undefined;
    controller.close();
    this.#onEnd({ by: "atlas", reason });
  }

  /** False when the stream was closed under us: one broken connection must not keep a change from all the others. */
  #push(controller: ReadableStreamDefaultController<Uint8Array>, bytes: Uint8Array): boolean {
    try {
      controller.enqueue(bytes);
      return true;
    } catch (error) {
      this.#controller = undefined;
      this.#onEnd({ by: "reader", reason: describeError(error) });
      return false;
    }
  }

  /** Drops what is unsent; a reader that does not read cannot be told why, the log can. */
  #cut(reason: string): void {
    const controller = this.#controller;
    this.#controller = undefined;
    controller?.error(new Error(reason));
    this.#onEnd({ by: "slow", reason });
  }
}
