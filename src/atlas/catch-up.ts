// A watcher that knows more than this replica: it comes from one that was ahead. It is held for a moment, and sent on when that
// was not enough, so that nobody is told of an older state.
import type { Clock } from "../core/lib/clock.ts";
import { ProblemFault } from "../core/lib/http.ts";
import type { Logger } from "../core/lib/logger.ts";
import { comparePositions, formatPosition, type Position } from "../core/model/position.ts";
import type { Registry } from "./registry.ts";

/** How long a watcher is held, in ms: replicas are apart by milliseconds, after a pause of the store by a second or two. */
const HOLD_MS = 3_000;
/** When a position was not reached within this time, in ms, no replica is behind: the registry itself went back. */
const WENT_BACK_MS = 10_000;
/** So many positions that were asked for in vain are remembered. */
const MAX_ASKED = 1_000;

export type CatchUpOptions = {
  readonly registry: Registry;
  readonly clock: Clock;
  readonly logger: Logger;
  /** False for a store that only this process writes: who is ahead of it has seen a registry that is no more. */
  readonly mayLag: boolean;
};

export class CatchUp {
  readonly #options: CatchUpOptions;
  /** Position → when it was first asked for and not reached. */
  readonly #asked = new Map<string, number>();
  readonly #stopping = new AbortController();

  constructor(options: CatchUpOptions) {
    this.#options = options;
  }

  /**
   * Resolves when the registry is at `position` or beyond, and also when it has become clear that it never will be.
   * @param request its signal tells that the watcher went away; asked for only when it must wait, since it costs as long as
   * the stream lives
   * @throws ProblemFault `unavailable` with Retry-After when it is not there yet: another replica may be
   */
  async reach(position: Position, request: { readonly signal: AbortSignal }): Promise<void> {
    const { registry, clock, logger, mayLag } = this.#options;
    if (!mayLag || isThere(registry, position)) return;
    const key = formatPosition(position);
    const since = this.#asked.get(key) ?? clock.now();
    if (clock.now() - since >= WENT_BACK_MS && registry.degraded().length === 0) {
      logger.warn(
        `a watcher is at ${key} and the registry stays at ${formatPosition(registry.state())}: it went back; the watcher is told`,
      );
      return;
    }
    this.#remember(key, since);
    if (await this.#within(HOLD_MS, position, request.signal)) {
      this.#asked.delete(key);
      return;
    }
    throw new ProblemFault(
      "unavailable",
      `this replica is at ${formatPosition(registry.state())} and has not reached ${key} yet; try another`,
      { headers: { "retry-after": "1" } },
    );
  }

  /** Lets nobody wait any longer. */
  stop(): void {
    this.#stopping.abort(new Error("Atlas is stopping"));
  }

  async #within(ms: number, position: Position, signal: AbortSignal): Promise<boolean> {
    const { registry, clock } = this.#options;
    const reached = new AbortController();
    const unsubscribe = registry.on(() => {
      if (isThere(registry, position)) reached.abort();
    });
    try {
      await clock.sleep(ms, AbortSignal.any([signal, reached.signal, this.#stopping.signal]));
      return false;
    } catch (error) {
      if (reached.signal.aborted) return true;
      throw new ProblemFault("unavailable", "the stream was given up before this replica had caught up", {
        cause: error,
      });
    } finally {
      unsubscribe();
    }
  }

  #remember(key: string, since: number): void {
    this.#asked.set(key, since);
    for (const oldest of this.#asked.keys()) {
      if (this.#asked.size <= MAX_ASKED) return;
      this.#asked.delete(oldest);
    }
  }
}

function isThere(registry: Registry, position: Position): boolean {
  return comparePositions(registry.state(), position) >= 0;
}
