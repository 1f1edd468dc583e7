// What the routes of Atlas share: the parts they work on, who calls, and how a write answers, waiting or not.
import type { Clock } from "../core/lib/clock.ts";
import type { MetaStore } from "../core/registry/meta-store.ts";
import { hostOf, nameOf } from "./access.ts";
import type { Agents } from "./agents.ts";
import type { Actor } from "./audit-trail.ts";
import type { Backups } from "./backup.ts";
import type { Operations, Outcome } from "./operations.ts";
import type { PortOperations } from "./port-operations.ts";
import type { Propagation } from "./propagation.ts";
import type { SettingsOperations } from "./settings-operations.ts";
import type { CatchUp } from "./catch-up.ts";
import type { Leases } from "./leases.ts";
import type { Limits } from "./limits.ts";
import type { PeerFeed } from "./peer-feed.ts";
import type { Registry } from "./registry.ts";
import type { Call } from "./router.ts";
import { concerns, type Subject, type Waits } from "./waits.ts";
import type { WatchHub } from "./watch-hub.ts";

export type Parts = {
  readonly registry: Registry;
  readonly meta: MetaStore;
  readonly operations: Operations;
  readonly settings: SettingsOperations;
  readonly ports: PortOperations;
  readonly backups: Backups;
  readonly hub: WatchHub;
  readonly limits: Limits;
  readonly leases: Leases;
  readonly agents: Agents;
  readonly waits: Waits;
  readonly feed: PeerFeed;
  readonly catchUp: CatchUp;
  /** How many replicas live, this one included. */
  readonly replicas: () => number;
  readonly propagation: Propagation;
  /** What the registry lies in. */
  readonly store: "embedded" | "cluster";
  readonly clock: Clock;
  /** What does not work now, in words; empty when all is well. */
  readonly degraded: () => readonly string[];
};

type WriteQuery = {
  readonly wait?: "applied" | undefined;
  readonly timeout: number;
  readonly reason?: string | undefined;
};

/** @param agent the host whose agent writes, when it is one: its name where no token has one */
export function actorOf({ query, peer, caller }: Call<unknown, WriteQuery, unknown>, agent?: string): Actor {
  return {
    who: nameOf(caller) ?? agent ?? "anonymous",
    from: peer.address,
    reason: query.reason,
    confinedTo: hostOf(caller),
  };
}

/**
 * Carries out a write and answers it: 201 when it made something, else 200; with `wait=applied` when every agent runs it.
 * @param subject what is written: its refusal by an agent refuses the write
 * @param more further members of the answer
 */
export async function written<T extends Outcome>(
  { waits }: Parts,
  { query, request, peer }: Call<unknown, WriteQuery, unknown>,
  subject: Subject,
  write: () => Promise<T>,
  more: (outcome: T) => Readonly<Record<string, unknown>> = () => ({}),
): Promise<Response> {
  if (query.wait === undefined) return answer(await write(), more, {});
  const limitIdle = peer.noIdleLimit();
  const wait = waits.begin();
  try {
    const outcome = await write();
    const position = { generation: outcome.generation, revision: outcome.revision };
    const { applied, total } = outcome.changed
      ? await wait.applied({ position, subject, timeoutMs: query.timeout, signal: request.signal })
      : waits.progress(position, (rejection) => concerns(rejection, subject));
    return answer(outcome, more, { applied, total });
  } finally {
    wait.end();
    limitIdle();
  }
}

function answer<T extends Outcome>(
  outcome: T,
  more: (outcome: T) => Readonly<Record<string, unknown>>,
  progress: Readonly<Record<string, unknown>>,
): Response {
  const { generation, revision, changed, created } = outcome;
  return Response.json(
    { ...more(outcome), generation, revision, changed, ...progress },
    { status: created ? 201 : 200 },
  );
}
