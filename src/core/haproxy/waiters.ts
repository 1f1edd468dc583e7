import type { Rejection } from "../model/agent.ts";
import type { Applied } from "./proxy.ts";

/** The callers of `apply` that wait for their state, or a later one, to be read back. */
export interface Waiters {
  /** The number of the newest wish. */
  readonly newest: number;
  add(): Promise<Applied>;
  /** HAProxy was reloaded: everybody who waits hears why. */
  reloaded(reasons: readonly string[]): void;
  /** All wishes up to `number` are met. */
  settle(number: number, rejected: readonly Rejection[]): void;
  fail(number: number, error: unknown): void;
}

type Waiter = {
  readonly number: number;
  readonly reasons: string[];
  readonly resolve: (applied: Applied) => void;
  readonly reject: (error: unknown) => void;
};

export function createWaiters(): Waiters {
  let newest = 0;
  let waiting: readonly Waiter[] = [];
  const take = (upTo: number): readonly Waiter[] => {
    const taken = waiting.filter(({ number }) => number <= upTo);
    waiting = waiting.filter(({ number }) => number > upTo);
    return taken;
  };
  return {
    get newest() {
      return newest;
    },
    add() {
      newest += 1;
      const { promise, resolve, reject } = Promise.withResolvers<Applied>();
      waiting = [...waiting, { number: newest, reasons: [], resolve, reject }];
      return promise;
    },
    reloaded(reasons) {
      for (const waiter of waiting) waiter.reasons.push(...reasons);
    },
    settle(number, rejected) {
      for (const { resolve, reasons } of take(number)) resolve({ rejected, reloaded: reasons.length > 0, reasons });
    },
    fail(number, error) {
      for (const { reject } of take(number)) reject(error);
    },
  };
}
