// Writing to ZooKeeper: decide on what the mirror shows, write one transaction that holds only if that is still so, and
// decide again when it was not. Every decision can be repeated, so a write whose outcome nobody knows is decided anew.
import type { Clock } from "../lib/clock.ts";
import { fullJitter } from "../lib/backoff.ts";
import { Fault } from "../lib/errors.ts";
import { serial, type Serial } from "../lib/serial.ts";
import type { Zxid, ZooKeeperClient } from "./zookeeper-client.ts";
import { type Group, transactionsOf } from "./zookeeper-plans.ts";
import type { RegistryMirror } from "./zookeeper-registry.ts";
import { isLoss, Slots, tryCommit } from "./zookeeper-waits.ts";

export type WriterOptions = {
  readonly registry: RegistryMirror;
  /** Of the network: never a test's. */
  readonly timers: Clock;
  /** Resolves with the client when everything was read through it. @throws Fault `unavailable` when patience ends before */
  readonly ready: (patience: AbortSignal) => Promise<ZooKeeperClient>;
};

/** What to write: groups of steps that belong together. None: the store says so already. May throw to refuse. */
export type Decide = () => readonly Group[];

export type WriteOptions = {
  /** Writes with the same key wait for each other: they would only make each other decide again. */
  readonly key?: string;
  /** In ms. */
  readonly withinMs: number;
};

/** `zxid` of the last transaction; undefined when nothing was written. */
export type Outcome = { readonly zxid: Zxid | undefined; readonly changed: boolean };

export class Writer {
  readonly #options: WriterOptions;
  readonly #slots = new Slots();
  readonly #queues = new Map<string, { readonly serial: Serial; users: number }>();
  #confirming: Promise<void> = Promise.resolve();
  #confirmingNext: Promise<void> | undefined;

  constructor(options: WriterOptions) {
    this.#options = options;
  }

  /**
   * Resolves when the state shows it.
   * @throws Fault `unavailable` `withinMs` after its turn came: it may have been written all the same; and what `decide` throws
   */
  write(decide: Decide, { key, withinMs }: WriteOptions): Promise<Outcome> {
    const work = (): Promise<Outcome> => this.#slots.run(() => this.#within(decide, withinMs));
    return key === undefined ? work() : this.#inTurn(key, work);
  }

  async #within(decide: Decide, withinMs: number): Promise<Outcome> {
    const patience = new AbortController();
    const { promise: late, reject } = Promise.withResolvers<never>();
    const cancel = this.#options.timers.after(withinMs, () => {
      patience.abort();
      reject(tooSlow(withinMs));
    });
    try {
      return await Promise.race([this.#attempt(decide, patience.signal, withinMs), late]);
    } finally {
      cancel();
      patience.abort();
    }
  }

  async #attempt(decide: Decide, patience: AbortSignal, withinMs: number): Promise<Outcome> {
    let certain = false;
    let unsure = false;
    for (let round = 0; !patience.aborted; round += 1) {
      try {
        const client = await this.#options.ready(patience);
        const plan = attemptPlan(decide);
        if (plan.kind !== "write") {
          // another replica may have changed it a moment ago, and the news is on its way
          if (!certain) {
            await this.#confirm(client);
            certain = true;
            continue;
          }
          if (plan.kind === "refuse") throw plan.error;
          return { zxid: undefined, changed: unsure };
        }
        const result = await this.#commitAll(client, plan.groups);
        if (typeof result === "number") {
          await this.#show(result, patience);
          return { zxid: result, changed: true };
        }
        unsure ||= result === "connection lost";
        // what overtook us was told before our refusal
        await this.#options.registry.current();
        if (round > 2) await this.#options.timers.sleep(fullJitter(round, { baseMs: 2, capMs: 100 }), patience);
      } catch (error) {
        if (!isLoss(error)) throw error;
      }
    }
    throw tooSlow(withinMs);
  }

  async #commitAll(client: ZooKeeperClient, groups: readonly Group[]): Promise<Zxid | "lost race" | "connection lost"> {
    let last: Zxid | "lost race" | "connection lost" = "lost race";
    for (const transaction of transactionsOf(groups)) {
      last = await tryCommit(client, transaction);
      if (typeof last !== "number") return last;
    }
    return last;
  }

  async #show(zxid: Zxid, patience: AbortSignal): Promise<void> {
    while (!patience.aborted) {
      try {
        await this.#options.registry.shown(zxid);
        return;
      } catch (error) {
        if (!isLoss(error)) throw error;
        await this.#options.ready(patience);
      }
    }
  }

  /** Resolves when the mirror shows everything that was written before the call, by whomever. Many share one question. */
  #confirm(client: ZooKeeperClient): Promise<void> {
    this.#confirmingNext ??= this.#confirming.then(() => {
      this.#confirmingNext = undefined;
      const asked = this.#ask(client);
      this.#confirming = asked.catch(() => undefined);
      return asked;
    });
    return this.#confirmingNext;
  }

  async #ask(client: ZooKeeperClient): Promise<void> {
    // a transaction that changes nothing: its place in the log is behind all that were acknowledged
    await client.commit([{ kind: "check", path: "/" }]);
    await this.#options.registry.current();
  }

  async #inTurn<T>(key: string, work: () => Promise<T>): Promise<T> {
    const queue = this.#queues.get(key) ?? { serial: serial(), users: 0 };
    this.#queues.set(key, queue);
    queue.users += 1;
    try {
      return await queue.serial.run(work);
    } finally {
      queue.users -= 1;
      if (queue.users === 0) this.#queues.delete(key);
    }
  }
}

type Plan =
  | { readonly kind: "write"; readonly groups: readonly Group[] }
  | { readonly kind: "nothing" }
  | { readonly kind: "refuse"; readonly error: unknown };

function attemptPlan(decide: Decide): Plan {
  try {
    const groups = decide().filter((group) => group.length > 0);
    return groups.length === 0 ? { kind: "nothing" } : { kind: "write", groups };
  } catch (error) {
    return { kind: "refuse", error };
  }
}

function tooSlow(ms: number): Fault {
  return new Fault({
    code: "unavailable",
    message: `ZooKeeper did not confirm the write within ${ms / 1_000} s; it may have been written all the same`,
    hint: "Repeat it: writing the same thing twice changes nothing.",
  });
}
