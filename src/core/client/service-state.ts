// What the client remembers of each service, shared by every client made from one another by `extend`.
import { type CircuitBreaker, circuitBreaker } from "./breaker.ts";
import { type RetryBudget, retryBudget } from "./budget.ts";
import type { Bulkheads, Compartment } from "./bulkhead.ts";
import { type Latency, latency } from "./latency.ts";

export type Counters = {
  calls: number;
  ok: number;
  failed: number;
  /** Requests of finished attempts: first ones, retries and hedges; not what the router refused. */
  sent: number;
  retries: number;
  hedges: number;
  /** Calls that were not made: breaker open or bulkhead full. */
  rejected: number;
};

export type ServiceState = {
  readonly name: string;
  readonly budget: RetryBudget;
  readonly breaker: CircuitBreaker;
  readonly compartment: Compartment;
  readonly latency: Latency;
  readonly counters: Counters;
  /** When a connection was last lost, in ms since the epoch. */
  lostAt: number;
};

export function serviceState(name: string, places: Bulkheads): ServiceState {
  return {
    name,
    budget: retryBudget(),
    breaker: circuitBreaker(),
    compartment: places.compartment(),
    latency: latency(),
    counters: { calls: 0, ok: 0, failed: 0, sent: 0, retries: 0, hedges: 0, rejected: 0 },
    lostAt: Number.NEGATIVE_INFINITY,
  };
}
