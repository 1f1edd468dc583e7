// Self-preservation: how this host doubts a registry that shrinks. Pure; probing and time come from outside.
//
// A removal that says why (`deregistered`) is obeyed. One that does not, or that only says a lease ran out, may be the
// control plane's failure and not the instance's: the instance stays in the routing, held, until a probe from this very
// host says that it is dead. The idea is Eureka's self-preservation, per host and per instance instead of for all at once.
import { type Instance, isUsable } from "../core/model/instance.ts";
import type { Definition } from "../core/model/service.ts";
import type { Snapshot } from "../core/model/snapshot.ts";

/** An unexplained removal is obeyed while no more than this share of a service goes … */
const OBEYED_SHARE = 0.2;
/** … within this time, in ms: a registry emptied one by one is no better than one emptied at once. */
const OBEYED_WINDOW_MS = 600_000;
/** A hold ends after this time, in ms, when other instances of the service are usable. */
export const HOLD_MS = 600_000;
/** So many failed probes in a row say that an instance is dead. */
const FATAL_FAILURES = 2;

/** Why an instance is held: its lease ran out, or it vanished without a word. */
type Doubt = "expired" | "unexplained";

export type Hold = {
  readonly instance: Instance;
  readonly doubt: Doubt;
  /** When the registry dropped it, in ms since the epoch. */
  readonly since: number;
  /** Probes that failed since the last one that passed. */
  readonly failures: number;
  /** When a probe passed last; undefined: none yet. */
  readonly passedAt: number | undefined;
};

/** What this host believes: the registry's last word, and where it doubts it. */
export type View = {
  readonly snapshot: Snapshot;
  /** By instance id; never one that the snapshot has. */
  readonly holds: ReadonlyMap<string, Hold>;
  /** Definitions that the registry lost while instances of their service are still routed. */
  readonly remembered: Readonly<Record<string, Definition>>;
  /** Unexplained removals that were obeyed within the last OBEYED_WINDOW_MS. */
  readonly obeyed: readonly { readonly service: string; readonly at: number }[];
};

/** What happened to an instance that the registry dropped, for logs and metrics. */
export type Verdict = {
  readonly id: string;
  readonly outcome: "obeyed" | "held" | "released";
  readonly because: string;
};

export type Preserved = { readonly view: View; readonly verdicts: readonly Verdict[] };

export function emptyView(snapshot: Snapshot): View {
  return { snapshot, holds: new Map(), remembered: {}, obeyed: [] };
}

/** What a registry says next, and what it no longer has of what it had. */
export type Change = {
  readonly next: Snapshot;
  readonly gone: readonly Instance[];
  /** Whether `next` has an instance. */
  readonly has: (id: string) => boolean;
};

/** The change from one whole snapshot to another. */
export function changeBetween(previous: Snapshot, next: Snapshot): Change {
  const present = new Set(next.instances.map(({ id }) => id));
  const has = (id: string): boolean => present.has(id);
  return { next, has, gone: previous.instances.filter(({ id }) => !has(id)) };
}

/**
 * The view after the registry said something, be it a delta, a snapshot or another generation: the rules are the same.
 * Instances of the host itself are never held: their owner, this agent, knows best.
 */
export function preserve(view: View, { next, gone, has }: Change, host: string, now: number): Preserved {
  const reasons =
    gone.length + view.holds.size === 0 ? new Map() : new Map(next.removed.map(({ id, reason }) => [id, reason]));
  const holds = new Map(view.holds);
  const verdicts: Verdict[] = [];
  const recent = view.obeyed.filter(({ at }) => now - at < OBEYED_WINDOW_MS);

  for (const id of view.holds.keys()) {
    if (has(id)) release(holds, verdicts, id, "the registry has it again");
    else if (reasons.get(id) === "deregistered") release(holds, verdicts, id, "deregistered");
  }

  const unexplained = new Map<string, Instance[]>();
  const hold = (instance: Instance, doubt: Doubt): void => {
    holds.set(instance.id, { instance, doubt, since: now, failures: 0, passedAt: undefined });
    verdicts.push({ id: instance.id, outcome: "held", because: doubt });
  };
  for (const instance of gone) {
    const reason = reasons.get(instance.id);
    const certain = certainty(instance, reason, host);
    if (certain !== undefined) verdicts.push({ id: instance.id, outcome: "obeyed", because: certain });
    else if (reason === "expired") hold(instance, "expired");
    else unexplained.set(instance.service, [...(unexplained.get(instance.service) ?? []), instance]);
  }

  const obeyed = [...recent];
  for (const [service, missing] of unexplained) {
    const before = view.snapshot.instances.filter((instance) => instance.service === service).length;
    const earlier = recent.filter((removal) => removal.service === service).length;
    const share = (missing.length + earlier) / (before + earlier);
    const othersUsable = next.instances.some((instance) => instance.service === service && isUsable(instance));
    if (othersUsable && share <= OBEYED_SHARE) {
      for (const { id } of missing) {
        obeyed.push({ service, at: now });
        verdicts.push({ id, outcome: "obeyed", because: "unexplained, but few, and others are usable" });
      }
    } else for (const instance of missing) hold(instance, "unexplained");
  }

  const remembered = rememberedDefinitions(view, next, holds);
  const ended = endHolds({ snapshot: next, holds, remembered, obeyed }, now);
  return { view: ended.view, verdicts: [...verdicts, ...ended.verdicts] };
}

/** Why a removal needs no doubt, or undefined when it does. */
function certainty(instance: Instance, reason: string | undefined, host: string): string | undefined {
  if (reason === "deregistered") return "deregistered";
  if (instance.agent === host) return "an instance of this host";
  // nothing is lost with an instance that was not meant to get requests
  if (!instance.enabled || instance.draining) return "it was disabled or draining";
  return undefined;
}

/** The view without the holds whose time is over: the address is another's, or HOLD_MS passed and others are usable. */
export function endHolds(view: View, now: number): Preserved {
  if (view.holds.size === 0) return { view, verdicts: [] };
  const holds = new Map(view.holds);
  const verdicts: Verdict[] = [];
  const owners = new Map(
    view.snapshot.instances.map((instance) => [`${instance.address}:${instance.port}`, instance.id]),
  );
  const usable = new Set(view.snapshot.instances.filter(isUsable).map(({ service }) => service));
  for (const [id, { instance, since }] of view.holds) {
    const owner = owners.get(`${instance.address}:${instance.port}`);
    if (owner !== undefined) release(holds, verdicts, id, `its address belongs to ${owner} now`);
    else if (now - since >= HOLD_MS && usable.has(instance.service))
      release(holds, verdicts, id, `held for ${HOLD_MS / 60_000} min, and others are usable`);
  }
  return verdicts.length === 0 ? { view, verdicts } : { view: withHolds(view, holds), verdicts };
}

/** The view after a probe of a held instance; harmless when it is no longer held. */
export function probed(view: View, id: string, passed: boolean, now: number): Preserved {
  const hold = view.holds.get(id);
  if (hold === undefined) return { view, verdicts: [] };
  const holds = new Map(view.holds);
  const verdicts: Verdict[] = [];
  const failures = passed ? 0 : hold.failures + 1;
  if (failures >= FATAL_FAILURES) release(holds, verdicts, id, `${failures} probes in a row failed`);
  else holds.set(id, { ...hold, failures, passedAt: passed ? now : hold.passedAt });
  return { view: withHolds(view, holds), verdicts };
}

/** What the host routes of the registry's instances: the snapshot and what is held. */
export function routed(view: View): {
  readonly services: Readonly<Record<string, Definition>>;
  readonly instances: readonly Instance[];
} {
  const { services, instances } = view.snapshot;
  return {
    services: Object.keys(view.remembered).length === 0 ? services : { ...view.remembered, ...services },
    instances:
      view.holds.size === 0 ? instances : [...instances, ...[...view.holds.values()].map(({ instance }) => instance)],
  };
}

function withHolds(view: View, holds: View["holds"]): View {
  return { ...view, holds, remembered: rememberedDefinitions(view, view.snapshot, holds) };
}

function rememberedDefinitions(view: View, next: Snapshot, holds: View["holds"]): View["remembered"] {
  const missing = Object.entries({ ...view.remembered, ...view.snapshot.services }).filter(
    ([service]) => !Object.hasOwn(next.services, service),
  );
  if (missing.length === 0) return {};
  const needed = new Set(next.instances.map(({ service }) => service));
  for (const { instance } of holds.values()) needed.add(instance.service);
  return Object.fromEntries(missing.filter(([service]) => needed.has(service)));
}

function release(holds: Map<string, Hold>, verdicts: Verdict[], id: string, because: string): void {
  holds.delete(id);
  verdicts.push({ id, outcome: "released", because });
}
