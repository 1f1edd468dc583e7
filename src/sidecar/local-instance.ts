// An instance of this host: what it said over the socket, what Atlas has of it, and what follows. Pure.
import { isDeepStrictEqual } from "node:util";
import { comparePositions, type Position } from "../core/model/position.ts";
import type { Instance, PutInstance } from "../core/model/instance.ts";
import { instanceId, parseInstanceName } from "../core/model/names.ts";
import type { PutLocal } from "../core/model/local.ts";
import { type Definition, defaultDefinition } from "../core/model/service.ts";
import type { Snapshot } from "../core/model/snapshot.ts";
import { type Health, unchecked } from "./health.ts";

/** What an instance said about itself. */
type LocalSpec = {
  readonly port: number;
  readonly address: string;
  readonly weight: number;
  readonly zone: string;
  readonly version: string;
};

export type LocalInstance = {
  readonly id: string;
  readonly service: string;
  readonly instance: string;
  readonly spec: LocalSpec;
  /** True until Atlas has accepted `spec`. */
  readonly unsent: boolean;
  /** What the instance published, until Atlas has accepted it. */
  readonly definition: Definition | undefined;
  readonly ttlMs: number;
  /** When the instance has to have spoken again, in ms since the epoch. */
  readonly expiresAt: number;
  readonly draining: boolean;
  readonly health: Health;
  /** It is gone from this host; Atlas may not know yet. */
  readonly left: "deregistered" | "expired" | undefined;
  /** Where Atlas was when it accepted our last write, and what that write said; a snapshot before it knows less than we do. */
  readonly written: (Position & { readonly fields: Known | undefined }) | undefined;
};

/** What Atlas has of an instance, as far as this agent owns it. */
export type Known = Pick<Instance, "port" | "address" | "agent" | "draining" | "healthy">;

/** What has to be said to Atlas next, and what Atlas has of the instance once it accepted. */
export type Step =
  | { readonly kind: "define"; readonly definition: Definition }
  | { readonly kind: "put"; readonly put: PutInstance; readonly after: Known }
  | {
      readonly kind: "patch";
      readonly patch: { readonly healthy?: boolean; readonly draining?: true };
      readonly after: Known;
    }
  | { readonly kind: "delete"; readonly after: undefined };

/** What this host is called where an instance does not say. */
export type Host = { readonly host: string; readonly address: string; readonly zone: string };

/** The instance after a PUT over the socket. The same words again only renew the ttl. */
export function putLocal(
  previous: LocalInstance | undefined,
  service: string,
  instance: string,
  put: PutLocal,
  host: Host,
  now: number,
): LocalInstance {
  const spec: LocalSpec = {
    port: put.port,
    address: put.address ?? host.address,
    weight: put.weight ?? 100,
    zone: put.zone ?? host.zone,
    version: put.version ?? "",
  };
  const lease = { ttlMs: put.ttlMs, expiresAt: now + put.ttlMs };
  // an instance publishes its definition when it starts, not when it repeats itself: a new process, not yet proven
  const starts = previous === undefined || previous.left !== undefined || put.definition !== undefined;
  if (!starts) {
    const same = isDeepStrictEqual(previous.spec, spec);
    return same ? { ...previous, ...lease } : { ...previous, ...lease, spec, unsent: true };
  }
  return {
    id: instanceId(service, instance),
    service,
    instance,
    spec,
    unsent: true,
    definition: put.definition,
    ...lease,
    draining: false,
    health: unchecked,
    left: undefined,
    written: previous?.written,
  };
}

/** An instance that Atlas says is ours and that nobody told us about, after the state directory was lost for example. */
export function adoptLocal(instance: Instance, ttlMs: number, position: Position, now: number): LocalInstance {
  const { id, service, port, address, weight, zone, version, draining, healthy } = instance;
  return {
    id,
    service,
    instance: instance.instance,
    spec: { port, address, weight, zone, version },
    unsent: false,
    definition: undefined,
    ttlMs,
    expiresAt: now + ttlMs,
    draining,
    health: { ...unchecked, healthy, proven: healthy === true },
    left: undefined,
    written: { generation: position.generation, revision: position.revision, fields: instance },
  };
}

/** What Atlas has, or undefined: its snapshot, unless our last accepted write is newer. */
function knownOf(local: LocalInstance, snapshot: Snapshot, seen: Instance | undefined): Known | undefined {
  if (local.written !== undefined && comparePositions(snapshot, local.written) < 0) return local.written.fields;
  return seen;
}

/** True when another host's agent says that the instance is his. */
export function isForeign(known: Pick<Known, "agent"> | undefined, host: string): boolean {
  return known !== undefined && known.agent !== null && known.agent !== host;
}

/** Pure: what Atlas must be told about a local instance now, or undefined when it has everything right. */
export function nextStep(
  local: LocalInstance,
  snapshot: Snapshot,
  seen: Instance | undefined,
  host: string,
): Step | undefined {
  const known = knownOf(local, snapshot, seen);
  if (local.left !== undefined) return known?.agent === host ? { kind: "delete", after: undefined } : undefined;
  if (local.definition !== undefined) return { kind: "define", definition: local.definition };
  // two agents with one instance would overwrite each other without end: whoever was told last keeps it
  if (!local.unsent && isForeign(known, host)) return undefined;
  const { healthy } = local.health;
  const { port, address } = local.spec;
  const ours = known !== undefined && known.agent === host && known.port === port && known.address === address;
  if (local.unsent || !ours) {
    const own = { agent: host, healthy, draining: local.draining };
    return { kind: "put", put: { ...local.spec, ...own }, after: { port, address, ...own } };
  }
  const patch = {
    ...(healthy !== null && known.healthy !== healthy ? { healthy } : {}),
    // an operator may drain it as well, and that is not ours to undo
    ...(local.draining && !known.draining ? { draining: true as const } : {}),
  };
  return Object.keys(patch).length === 0 ? undefined : { kind: "patch", patch, after: { ...known, ...patch } };
}

/**
 * The local instance after Atlas accepted a step at a position.
 * @param sent the instance as it was when the step was made: what it said since is still unsaid
 */
export function acceptStep(local: LocalInstance, sent: LocalInstance, step: Step, position: Position): LocalInstance {
  if (step.kind === "define") {
    return local.definition === sent.definition ? { ...local, definition: undefined } : local;
  }
  const { generation, revision } = position;
  const unsent = step.kind === "put" ? local.unsent && local.spec !== sent.spec : local.unsent;
  return { ...local, unsent, written: { generation, revision, fields: step.after } };
}

/** True when an instance that left can be forgotten: Atlas's own word is as new as our deletion, and it is no longer ours there. */
export function isForgettable(
  local: LocalInstance,
  snapshot: Snapshot,
  seen: Instance | undefined,
  host: string,
): boolean {
  const ours = seen?.agent === host || knownOf(local, snapshot, seen)?.agent === host;
  return local.left !== undefined && !ours;
}

type Routed = { readonly services: Readonly<Record<string, Definition>>; readonly instances: readonly Instance[] };

/**
 * What this host routes: the registry's view with its own instances as they are here and now, known to Atlas or not. The
 * operator's word (`enabled`) stays the registry's.
 * @param disabled ids that the registry last said were disabled: it counts while the registry does not have them
 */
export function overlayLocal(
  view: Routed,
  locals: Iterable<LocalInstance>,
  host: string,
  disabled: ReadonlySet<string>,
): Routed {
  const own = new Map<string, LocalInstance>();
  for (const local of locals) own.set(local.id, local);
  if (own.size === 0) return view;
  const instances: Instance[] = [];
  const seen = new Map<string, Instance>();
  for (const instance of view.instances) {
    if (own.has(instance.id)) seen.set(instance.id, instance);
    else instances.push(instance);
  }
  const undefinedServices: Record<string, Definition> = {};
  for (const local of own.values()) {
    if (local.left !== undefined) continue;
    const known = seen.get(local.id);
    instances.push({
      ...localAsInstance(local, known, host),
      enabled: known?.enabled ?? !disabled.has(local.id),
    });
    if (!Object.hasOwn(view.services, local.service)) {
      undefinedServices[local.service] ??= local.definition ?? defaultDefinition;
    }
  }
  const complete = Object.keys(undefinedServices).length === 0;
  return { services: complete ? view.services : { ...view.services, ...undefinedServices }, instances };
}

function localAsInstance(local: LocalInstance, seen: Instance | undefined, host: string): Omit<Instance, "enabled"> {
  // what an operator changed in the registry stands, unless the instance has just said something newer
  const registry = local.unsent ? undefined : seen;
  return {
    id: local.id,
    service: local.service,
    instance: local.instance,
    host: parseInstanceName(local.instance)?.host ?? local.instance,
    address: local.spec.address,
    port: local.spec.port,
    healthy: local.health.healthy,
    draining: local.draining || (registry?.draining ?? false),
    weight: registry?.weight ?? local.spec.weight,
    zone: registry?.zone ?? local.spec.zone,
    version: registry?.version ?? local.spec.version,
    agent: host,
  };
}
