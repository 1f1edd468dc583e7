// The last changes, so that a watcher that was away for a moment gets what it missed instead of everything.
import type { Position } from "../core/model/position.ts";
import { type Delta, mergeDeltas } from "../core/model/snapshot.ts";

/** @default changes 2_000, instances 50_000: a few MB, and minutes of a rolling restart of a large realm */
export type DeltaLogOptions = { readonly changes?: number; readonly instances?: number };

/** What a watcher at some position needs in order to be at the newest. */
export type Missed =
  | { readonly kind: "nothing" }
  | { readonly kind: "delta"; readonly delta: Delta }
  /** The log does not reach back that far, or it is another generation. */
  | { readonly kind: "snapshot" };

export class DeltaLog {
  readonly #maxChanges: number;
  readonly #maxInstances: number;
  #deltas: Delta[] = [];
  #instances = 0;
  /** By where they begin in the log. */
  #merged = new Map<number, Delta>();

  constructor({ changes = 2_000, instances = 50_000 }: DeltaLogOptions = {}) {
    this.#maxChanges = changes;
    this.#maxInstances = instances;
  }

  add(delta: Delta): void {
    this.#deltas.push(delta);
    this.#instances += sizeOf(delta);
    this.#merged.clear();
    let dropped = 0;
    while (this.#deltas.length - dropped > this.#maxChanges || this.#instances > this.#maxInstances) {
      const oldest = this.#deltas[dropped];
      if (oldest === undefined) break;
      this.#instances -= sizeOf(oldest);
      dropped += 1;
    }
    // in lumps, since shortening an array from the front moves the rest
    if (dropped > 0) this.#deltas = this.#deltas.slice(dropped);
  }

  /** A new generation: nothing follows from what was. */
  clear(): void {
    this.#deltas = [];
    this.#instances = 0;
    this.#merged.clear();
  }

  /**
   * A position between two of ours is another replica's: each coalesces in its own rhythm, but the same position is the same
   * state everywhere. Deltas put and delete whole things, so one that begins earlier leads to the same end.
   * @param now the newest position, which the log's last delta leads to
   */
  missedSince(position: Position, now: Position): Missed {
    if (position.generation !== now.generation || position.revision > now.revision) return { kind: "snapshot" };
    if (position.revision === now.revision) return { kind: "nothing" };
    const start = this.#deltas.findLastIndex(({ since }) => since <= position.revision);
    const [first, ...more] = start < 0 ? [] : this.#deltas.slice(start);
    if (first === undefined) return { kind: "snapshot" };
    // a replica's watchers all come back from about the same place
    const merged = this.#merged.get(first.since) ?? mergeDeltas(first, ...more);
    this.#merged.set(first.since, merged);
    return { kind: "delta", delta: { ...merged, since: position.revision } };
  }

  /** Names of the services and ids of the instances that a revision touched; undefined when the log no longer knows. */
  touchedBy(revision: number): ReadonlySet<string> | undefined {
    const delta = this.#deltas.find(({ since, revision: reached }) => since < revision && revision <= reached);
    if (delta === undefined) return undefined;
    const ids = [...delta.instances.put, ...delta.instances.delete].map(({ id }) => id);
    const owners = ids.map((id) => id.slice(0, id.indexOf("/")));
    return new Set([...Object.keys(delta.services.put), ...delta.services.delete, ...owners, ...ids]);
  }
}

function sizeOf(delta: Delta): number {
  return 1 + delta.instances.put.length + delta.instances.delete.length;
}
