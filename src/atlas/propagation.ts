// How fast hosts apply changes, as `status` shows it: what they say of themselves in their acks.
import type { Clock } from "../core/lib/clock.ts";

/** What is older is another story, in ms. */
const WINDOW_MS = 300_000;
/** The newest samples that are kept: 3,000 hosts three times. */
const KEPT = 9_000;

export class Propagation {
  readonly #clock: Clock;
  /** In order of `at`; the oldest stands at `#next` once all places are taken. */
  readonly #samples: { readonly at: number; readonly tookMs: number }[] = [];
  #next = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A host ran a change so long after the change had reached it, in ms. */
  note(tookMs: number): void {
    this.#samples[this.#next] = { at: this.#clock.now(), tookMs };
    this.#next = (this.#next + 1) % KEPT;
  }

  /** The 99th percentile of the last five minutes, in ms; undefined when nothing changed. */
  p99(): number | undefined {
    const oldest = this.#clock.now() - WINDOW_MS;
    const took = this.#samples.flatMap((sample) => (sample.at >= oldest ? sample.tookMs : []));
    // the nearest rank: of a few samples it is the worst
    return took.sort((a, b) => a - b)[Math.ceil(took.length * 0.99) - 1];
  }
}
