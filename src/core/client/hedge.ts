// Hedging: when an answer is slower than nearly all, ask once more and take whichever comes first.
// Source: J. Dean and L. A. Barroso, "The Tail at Scale" (CACM, 2013): a second request after the 95th percentile costs 5 %
// and cuts the tail.
import type { Answer } from "./answer.ts";
import { type Result, start, type Started, type Turn } from "./attempt.ts";
import type { Call } from "./call.ts";
import type { Core } from "./core.ts";
import type { Attempt } from "./error.ts";

export type HedgeOptions = {
  /** The second request leaves when the first takes longer than this share of the last answers. @default 0.95 */
  readonly percentile: number;
  /** Answers seen before there is a percentile to go by. @default 20 */
  readonly minimum: number;
};

/** When a second request may leave, in ms after the first; undefined when none may. Reads only: GET and HEAD. */
export function hedgeDelay(call: Call): number | undefined {
  const { hedge } = call.settings;
  if (hedge === false || (call.method !== "GET" && call.method !== "HEAD")) return undefined;
  const { latency } = call.state;
  return latency.count < hedge.minimum ? undefined : latency.quantile(hedge.percentile);
}

/** The winner's result; `other` is what became of the second request when there was one and it is known. */
export async function attemptHedged<T>(
  core: Core,
  call: Call,
  answer: Answer<T>,
  turn: Turn,
  now: number,
  delayMs: number,
): Promise<{ readonly result: Result<T>; readonly other?: Attempt }> {
  const first = start(core, call, answer, turn, now);
  const slow = new AbortController();
  const early = await Promise.race([first.result, timer(core, delayMs, slow.signal)]);
  slow.abort();
  if (early !== "slow") return { result: early };
  const second = startSecond(core, call, answer, turn);
  if (second === undefined) return { result: await first.result };
  return firstToSucceed(first, second);
}

async function timer(core: Core, ms: number, signal: AbortSignal): Promise<"slow"> {
  try {
    await core.clock.sleep(ms, signal);
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  return "slow";
}

/** A hedge is load like a retry: it is drawn from the same budget, and never waits for a place. */
function startSecond<T>(core: Core, call: Call, answer: Answer<T>, turn: Turn): Started<T> | undefined {
  const { state, settings } = call;
  const entry = state.compartment.enter(settings.bulkhead);
  if (entry.kind === "queued") entry.cancel();
  if (entry.kind !== "in") return undefined;
  const now = core.clock.now();
  if (!state.budget.withdraw(now, settings.retry.budget)) {
    state.compartment.leave();
    return undefined;
  }
  state.counters.hedges += 1;
  state.counters.sent += 1;
  return start(core, call, answer, { ...turn, hedge: true }, now);
}

async function firstToSucceed<T>(
  first: Started<T>,
  second: Started<T>,
): Promise<{ result: Result<T>; other?: Attempt }> {
  const settled = await Promise.race([
    first.result.then((result) => ({ result, rest: second })),
    second.result.then((result) => ({ result, rest: first })),
  ]);
  const { result, rest } = settled;
  if (!result.ok) return { result: await rest.result, other: result.attempt };
  rest.flight.stop("hedge_lost");
  // the loser ends at once, its socket closed
  return { result, other: (await rest.result).attempt };
}
