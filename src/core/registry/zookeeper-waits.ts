// Waiting for what a mirror shows, and for what becomes of a transaction.
import { errorCode, Fault } from "../lib/errors.ts";
import type { Op, Zxid, ZooKeeperClient } from "./zookeeper-client.ts";

/** How far a mirror has come. */
export class Milestones {
  /** It shows everything up to here; -1: that is not known. */
  #reached: Zxid = -1;
  #waiting: { readonly zxid: Zxid; readonly resolve: () => void; readonly reject: (fault: Fault) => void }[] = [];

  /** Resolves when the mirror shows everything up to `zxid`. @throws Fault `connection_loss` */
  async at(zxid: Zxid): Promise<void> {
    if (this.#reached >= zxid) return;
    await new Promise<void>((resolve, reject) => this.#waiting.push({ zxid, resolve, reject }));
  }

  reach(zxid: Zxid): void {
    this.#reached = zxid;
    if (this.#waiting.length === 0) return;
    const reached = this.#waiting.filter((waiter) => waiter.zxid <= zxid);
    this.#waiting = this.#waiting.filter((waiter) => waiter.zxid > zxid);
    for (const { resolve } of reached) resolve();
  }

  /** More is about to be shown. */
  leave(): void {
    this.#reached = -1;
  }

  /** The connection is gone. */
  lose(): void {
    this.#reached = -1;
    const waiting = this.#waiting.splice(0);
    for (const { reject } of waiting) {
      reject(new Fault({ code: "connection_loss", message: "the connection to ZooKeeper was lost" }));
    }
  }
}

/**
 * So many writes on the way at once, each until the mirror shows it. Without a bound a fleet that registers together keeps the
 * mirror reading, and nothing is published before the last of them: 10,000 registrations timed out.
 */
const WRITES_IN_FLIGHT = 128;

/** Lets in as many at once; the others wait, first come, first served. */
export class Slots {
  #free = WRITES_IN_FLIGHT;
  readonly #queue: (() => void)[] = [];

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#queue.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#queue.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}

const RACES = new Set(["bad_version", "no_node", "node_exists", "not_empty"]);
// -118: the session moved to another server in the middle of the request
const LOSSES = new Set(["connection_loss", "session_expired", "code_118"]);

/** True when nobody knows what became of a request. */
export function isLoss(error: unknown): boolean {
  return LOSSES.has(errorCode(error) ?? "");
}

/**
 * What became of a transaction: its place in the log; `lost race`: another writer was first, nothing happened;
 * `connection lost`: nobody knows.
 * @throws Fault `unavailable` for anything else
 */
export async function tryCommit(
  client: ZooKeeperClient,
  ops: readonly Op[],
): Promise<Zxid | "lost race" | "connection lost"> {
  try {
    return await client.commit(ops);
  } catch (error) {
    if (isLoss(error)) return "connection lost";
    if (RACES.has(errorCode(error) ?? "")) return "lost race";
    throw new Fault({
      code: "unavailable",
      message: "ZooKeeper refuses to write",
      hint: "Is there a quota, or an access list, on the znodes of this realm? Atlas needs them open to it.",
      cause: error,
    });
  }
}
