// How much of Atlas one caller, and all of them together, can hold at a time. What comes beyond is told to come back. Headers
// (16 KiB, fewer than 200) and idle connections are bounded by Bun, bodies in body.ts, unread streams in watcher.ts.
import { ProblemFault } from "../core/lib/http.ts";
import { isLoopback } from "../core/model/names.ts";

/** So many at once, altogether and from one address. Loopback has no bound of its own: proxies and tests speak from there. */
type Bound = { readonly all: number; readonly each: number };

/** Requests that are being answered; a write that waits until it is applied may take minutes. */
const REQUESTS: Bound = { all: 1_024, each: 256 };
/** Open streams. Agents may have the last quarter alone: a crowd of readers must cost no host its lease. */
const STREAMS: Bound = { all: 10_000, each: 1_024 };
const READERS = 0.75;

type Count = { all: number; readonly each: Map<string, number> };

export class Limits {
  readonly #requests: Count = { all: 0, each: new Map() };
  readonly #streams: Count = { all: 0, each: new Map() };

  /**
   * @param address where the request came from
   * @returns what to call when it was answered
   * @throws ProblemFault `unavailable`, with Retry-After
   */
  request(address: string): () => void {
    return enter(this.#requests, REQUESTS, REQUESTS.all, address, "requests");
  }

  /** The same for a stream that opens. */
  stream(address: string, of: "agent" | "reader"): () => void {
    const all = of === "agent" ? STREAMS.all : STREAMS.all * READERS;
    return enter(this.#streams, STREAMS, all, address, "streams");
  }
}

function enter(count: Count, bound: Bound, all: number, address: string, what: string): () => void {
  const own = count.each.get(address) ?? 0;
  const crowded = !isLoopback(address) && own >= bound.each;
  if (crowded || count.all >= all) {
    const whose = crowded ? `${address} has ${own}` : `this Atlas has ${count.all}`;
    throw new ProblemFault("unavailable", `${whose} ${what} open, and takes no more now`, {
      headers: { "retry-after": "1" },
    });
  }
  count.all += 1;
  count.each.set(address, own + 1);
  let left = false;
  return () => {
    if (left) return;
    left = true;
    count.all -= 1;
    const rest = (count.each.get(address) ?? 1) - 1;
    if (rest > 0) count.each.set(address, rest);
    else count.each.delete(address);
  };
}
