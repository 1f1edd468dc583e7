// One open stream, and how much of it may wait in our memory for a reader that does not read.
//
// It is one of Bun's direct streams, which lie straight on the socket: there are thousands of them, and one takes 3 KB less than
// a stream with a queue of its own. And only they can end a connection that nobody reads.
import type { Clock } from "../core/lib/clock.ts";
import { formatSse } from "../core/lib/sse.ts";

/** Beyond its first event, this much unsent is too much; the kernel's own buffers (a few MB) come before. */
const MAX_UNSENT_BYTES = 1_048_576;
/** Unsent bytes for this long, however few, and the reader is cut off too. */
const MAX_STALLED_MS = 30_000;

const encoder = new TextEncoder();

/** How a stream ended: its reader went, the reader was too slow, or Atlas had a reason. */
export type StreamEnd = { readonly by: "reader" | "slow" | "atlas"; readonly reason: string };

export type WatcherOptions = {
  readonly clock: Clock;
  readonly first: Uint8Array;
  /** Called once, whoever ended the stream. Given the watcher so that one function serves all. */
  readonly onEnd: (end: StreamEnd, watcher: Watcher) => void;
};

type State =
  /** Nobody has begun to read the body. `ended`: there will be no more. */
  | { readonly kind: "unread"; readonly chunks: Uint8Array[]; ended: boolean }
  | { readonly kind: "open"; readonly sink: ReadableStreamDirectController }
  | { readonly kind: "over" }
  /** Cut off before anybody read it. */
  | { readonly kind: "failed"; readonly error: Error };

const OVER: State = { kind: "over" };

// itself the source of its stream: an object and its functions less for each
export class Watcher implements Bun.DirectUnderlyingSource<Uint8Array> {
  readonly type = "direct";
  /** The body of the response, whose connection must not be kept: `Connection: close`. */
  readonly body: ReadableStream<Uint8Array>;
  readonly #clock: Clock;
  readonly #onEnd: WatcherOptions["onEnd"];
  readonly #limit: number;
  #state: State;
  /** Bytes written since the socket last took everything. */
  #unsent: number;
  #stalledSince: number | undefined;

  constructor({ clock, first, onEnd }: WatcherOptions) {
    this.#clock = clock;
    this.#onEnd = onEnd;
    this.#limit = MAX_UNSENT_BYTES + first.byteLength;
    this.#state = { kind: "unread", chunks: [first], ended: false };
    this.#unsent = first.byteLength;
    this.body = new ReadableStream<Uint8Array>(this);
  }

  send(bytes: Uint8Array): void {
    if (!this.#isOpen()) return;
    if (this.#unsent > 0) {
      this.#stalledSince ??= this.#clock.now();
      const stalledMs = this.#clock.now() - this.#stalledSince;
      if (this.#unsent + bytes.byteLength > this.#limit || stalledMs > MAX_STALLED_MS) {
        const reason = `${this.#unsent} bytes were unsent for ${Math.round(stalledMs / 1_000)} s`;
        this.#cut({ by: "slow", reason });
        return;
      }
    }
    this.#write(bytes);
  }

  /** Ends the stream in order, with a last event that says why; one that is behind is cut off instead. */
  end(reason: string): void {
    if (!this.#isOpen()) return;
    const wasUnsent = this.#unsent > 0;
    this.#write(encoder.encode(formatSse({ event: "end", data: { reason } })));
    const state = this.#state;
    if (state.kind === "unread") {
      state.ended = true;
      this.#onEnd({ by: "atlas", reason }, this);
    } else if (state.kind === "open" && !wasUnsent && this.#unsent === 0) {
      this.#state = OVER;
      void state.sink.end();
      this.#onEnd({ by: "atlas", reason }, this);
    } else this.#cut({ by: "atlas", reason });
  }

  /** For Bun: somebody begins to read the body, or reads on. */
  pull(sink: ReadableStreamDirectController): void {
    const state = this.#state;
    if (state.kind === "failed") throw state.error;
    if (state.kind !== "unread") return;
    this.#state = { kind: "open", sink };
    this.#unsent = 0;
    this.#stalledSince = undefined;
    for (const bytes of state.chunks) this.#write(bytes);
    if (!state.ended) return;
    this.#state = OVER;
    void sink.end();
  }

  /** For Bun: whoever read went away. */
  cancel(): void {
    if (!this.#isOpen()) return;
    this.#state = OVER;
    this.#onEnd({ by: "reader", reason: "the reader went away" }, this);
  }

  #isOpen(): boolean {
    const state = this.#state;
    return state.kind === "open" || (state.kind === "unread" && !state.ended);
  }

  #write(bytes: Uint8Array): void {
    const state = this.#state;
    if (state.kind === "unread") {
      state.chunks.push(bytes);
      this.#unsent += bytes.byteLength;
      return;
    }
    if (state.kind !== "open") return;
    const taken = state.sink.write(bytes);
    void state.sink.flush();
    if (typeof taken === "number") return;
    // the socket is full; all writes until it is empty again are given the same promise
    const isNew = this.#unsent === 0;
    this.#unsent += bytes.byteLength;
    if (!isNew) return;
    this.#stalledSince = this.#clock.now();
    const drained = (): void => {
      this.#unsent = 0;
      this.#stalledSince = undefined;
    };
    void taken.then(drained, drained);
  }

  /** Drops what is unsent and the connection with it; a reader that does not read cannot be told why, the log can. */
  #cut(end: StreamEnd): void {
    const state = this.#state;
    const error = new Error(end.reason);
    this.#state = state.kind === "open" ? OVER : { kind: "failed", error };
    if (state.kind === "open") state.sink.close(error);
    this.#onEnd(end, this);
  }
}
