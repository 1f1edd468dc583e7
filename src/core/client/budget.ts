import { rollingPair } from "./window.ts";

/** How many retries a service may get. */
export type BudgetOptions = {
  /** Retries allowed per request. @default 0.1 */
  readonly ratio: number;
  /** Retries allowed whatever the traffic, in each window: a service that is rarely called can still be retried. @default 10 */
  readonly reserve: number;
};

export const BUDGET_WINDOW_MS = 10_000;

/** Bounds the load that retries and hedges add to a service that is in trouble. */
export interface RetryBudget {
  /** A call begins. */
  request(now: number): void;
  /** Takes one retry; false when there is none. */
  withdraw(now: number, options: BudgetOptions): boolean;
  /** Retries still to be had. */
  available(now: number, options: BudgetOptions): number;
}

/**
 * In any 10 s a service gets at most `reserve + ratio · requests` retries. Without such a bound, three layers that each try
 * three times turn one failure into 27 requests.
 * Source: Finagle's RetryBudget (a share of the requests of the last 10 s, and a floor); Google SRE book, chapter 21,
 * "Handling Overload" (10 %).
 */
export function retryBudget(): RetryBudget {
  const window = rollingPair(BUDGET_WINDOW_MS);
  const available: RetryBudget["available"] = (now, { ratio, reserve }) =>
    // counts are whole, the ratio is not: 0.1 · 10 must be 1, not 0.9999
    Math.max(0, Math.floor(reserve + ratio * window.first(now) + 1e-9) - window.second(now));
  return {
    request: (now) => window.add(now, 1, 0),
    withdraw(now, options) {
      if (available(now, options) < 1) return false;
      window.add(now, 0, 1);
      return true;
    },
    available,
  };
}
