import type { BreakerState } from "./breaker.ts";
import type { BudgetOptions } from "./budget.ts";
import type { Counters, ServiceState } from "./service-state.ts";

/** How calls to one service went since the client was made, and how its policies stand now. */
export type ServiceStats = Readonly<Counters> & {
  readonly service: string;
  readonly inFlight: number;
  /** Calls that wait for a place in the bulkhead. */
  readonly waiting: number;
  readonly circuitBreaker: BreakerState;
  /** Retries and hedges that could be had right now. */
  readonly retriesAvailable: number;
  /** Of the last 256 answers, in ms; undefined before the first. */
  readonly latency: { readonly p50: number; readonly p95: number; readonly p99: number } | undefined;
};

export function statsOf(state: ServiceState, now: number, budget: BudgetOptions): ServiceStats {
  const [p50, p95, p99] = [0.5, 0.95, 0.99].map((share) => state.latency.quantile(share));
  return {
    service: state.name,
    ...state.counters,
    inFlight: state.compartment.inFlight,
    waiting: state.compartment.waiting,
    circuitBreaker: state.breaker.state,
    retriesAvailable: state.budget.available(now, budget),
    latency: p50 === undefined || p95 === undefined || p99 === undefined ? undefined : { p50, p95, p99 },
  };
}
