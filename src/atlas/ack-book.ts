// What each agent has applied, by its last ack, wherever that arrived. Acks lie in no store: each replica keeps those that came
// to it and tells its peers. Usually that is the replica the agent follows; behind a load balancer it may be any.
import type { Rejection } from "../core/model/agent.ts";
import { comparePositions, type Position } from "../core/model/position.ts";

/** An ack as replicas tell it to each other. */
export type HostAck = Position & {
  readonly host: string;
  /** Whose ack: what an earlier boot applied says nothing about this one, the whole host may have restarted. */
  readonly boot: string;
  readonly rejected: readonly Rejection[];
};

/** What is believed of an agent. */
type Applied = { readonly applied: Position | undefined; readonly rejected: readonly Rejection[] };

/** Where an ack arrived, who holds the agent's lease as far as we see, and where the registry is here. */
type Arrival = { readonly by: string; readonly holder: string | undefined; readonly now: Position };

type Known = { readonly ack: HostAck; readonly by: string };

export class AckBook {
  readonly #boots = new Map<string, string>();
  readonly #known = new Map<string, Known>();
  /** Of a boot that no lease names yet as far as we see: a peer can be told sooner than by the store. */
  readonly #early = new Map<string, Known>();
  /** Hosts whose ack is ahead of the registry here. */
  readonly #ahead = new Set<string>();

  /** A lease names the boot that counts from now on. @returns whether it is another one than before */
  begin(host: string, boot: string, now: Position): boolean {
    if (this.#boots.get(host) === boot) return false;
    this.#boots.set(host, boot);
    this.void(host);
    const early = this.#early.get(host);
    this.#early.delete(host);
    if (early?.ack.boot === boot) this.#keep(early, now);
    return true;
  }

  /** @returns whether it says something new */
  take(ack: HostAck, { by, holder, now }: Arrival): boolean {
    if (this.bootOf(ack.host) !== ack.boot) {
      this.#early.set(ack.host, { ack, by });
      return false;
    }
    const before = this.#known.get(ack.host)?.ack;
    const order = before === undefined ? 1 : comparePositions(ack, before);
    // an agent that goes back says so where its lease is; elsewhere it is an old word that was late
    if (order < 0 && by !== holder) return false;
    this.#keep({ ack, by }, now);
    return order !== 0 || JSON.stringify(before?.rejected) !== JSON.stringify(ack.rejected);
  }

  /** Whose acks count. Empty: only the instances of that host are known. */
  bootOf(host: string): string {
    return this.#boots.get(host) ?? "";
  }

  /** @param now where the registry is here: what is ahead of it is believed once it is there as well */
  believed(host: string, now: Position): Applied {
    const known = this.#known.get(host)?.ack;
    if (known === undefined || isAhead(known, now)) return { applied: undefined, rejected: [] };
    const { generation, revision, rejected } = known;
    return { applied: { generation, revision }, rejected };
  }

  /** The hosts whose ack was ahead of the registry and no longer is, each told once. */
  caughtUp(now: Position): readonly string[] {
    const reached = [...this.#ahead].filter((host) => {
      const known = this.#known.get(host)?.ack;
      return known === undefined || !isAhead(known, now);
    });
    for (const host of reached) this.#ahead.delete(host);
    return reached;
  }

  /** The last acks that arrived at a replica. */
  from(replica: string): readonly HostAck[] {
    return [...this.#known.values()].filter(({ by }) => by === replica).map(({ ack }) => ack);
  }

  /** What this agent acked counts no more. */
  void(host: string): void {
    this.#known.delete(host);
    this.#ahead.delete(host);
  }

  drop(host: string): void {
    this.void(host);
    this.#boots.delete(host);
    this.#early.delete(host);
  }

  #keep(known: Known, now: Position): void {
    const { ack } = known;
    this.#known.set(ack.host, known);
    if (isAhead(ack, now)) this.#ahead.add(ack.host);
    else this.#ahead.delete(ack.host);
  }
}

function isAhead(position: Position, now: Position): boolean {
  return comparePositions(position, now) > 0;
}
