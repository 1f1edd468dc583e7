import { rollingPair } from "./window.ts";

/** When a service is left alone. */
export type BreakerOptions = {
  /** Share of failed attempts in the last 10 s that opens it. @default 0.5 */
  readonly threshold: number;
  /** Attempts in the last 10 s before the share means anything. @default 20 */
  readonly minimum: number;
  /** How long it stays open the first time, in ms; doubles while probes fail. @default 1000 */
  readonly openMs: number;
  /** It never stays open longer than this, in ms. @default 30_000 */
  readonly maxOpenMs: number;
};

export type BreakerState =
  | { readonly kind: "closed" }
  /** Nothing is sent until `until` (ms since the epoch). */
  | { readonly kind: "open"; readonly until: number; readonly openings: number }
  /** One attempt is under way to see whether the service is back. */
  | { readonly kind: "probing"; readonly openings: number };

/** What an admitted attempt came in as; it is handed back with the result. */
export type Ticket = "normal" | "probe";

export interface CircuitBreaker {
  readonly state: BreakerState;
  /** May an attempt be sent? Undefined when not. */
  admit(now: number): Ticket | undefined;
  /** What became of it. `ignored`: it says nothing about the service (aborted by the caller, router refused). */
  record(now: number, ticket: Ticket, result: "ok" | "failed" | "ignored", options: BreakerOptions): void;
}

const WINDOW_MS = 10_000;

/**
 * Stops calling a service that fails, so that callers fail fast and the service can recover; after a while one probe
 * decides. Source: M. Nygard, "Release It!" (2007), chapter 5; a rate over a window as in Polly and resilience4j, since
 * "n failures in a row" never happens to a service that is half broken.
 */
export function circuitBreaker(): CircuitBreaker {
  const window = rollingPair(WINDOW_MS);
  let state: BreakerState = { kind: "closed" };

  const open = (now: number, openings: number, { openMs, maxOpenMs }: BreakerOptions): void => {
    state = { kind: "open", until: now + Math.min(maxOpenMs, openMs * 2 ** Math.min(openings, 20)), openings };
  };

  return {
    get state() {
      return state;
    },
    admit(now) {
      switch (state.kind) {
        case "closed":
          return "normal";
        case "probing":
          return undefined;
        case "open":
          if (now < state.until) return undefined;
          state = { kind: "probing", openings: state.openings };
          return "probe";
      }
    },
    record(now, ticket, result, options) {
      if (ticket === "probe") {
        if (state.kind !== "probing") return;
        if (result === "ok") {
          state = { kind: "closed" };
          window.clear();
        } else if (result === "failed") open(now, state.openings + 1, options);
        // a probe that says nothing: let the next attempt be the probe
        else state = { kind: "open", until: now, openings: state.openings };
        return;
      }
      // answers to attempts from before it opened say nothing new
      if (state.kind !== "closed" || result === "ignored") return;
      window.add(now, result === "ok" ? 1 : 0, result === "failed" ? 1 : 0);
      if (result === "ok") return;
      const failed = window.second(now);
      const total = window.first(now) + failed;
      if (total >= options.minimum && failed >= options.threshold * total) open(now, 0, options);
    },
  };
}
