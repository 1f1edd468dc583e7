import { z } from "zod";
import { type Instance, instanceSchema } from "./instance.ts";
import { serviceName } from "./names.ts";
import { positionSchema } from "./position.ts";
import { realmName } from "./realm.ts";
import { type Definition, readDefinitionSchema } from "./service.ts";

/** Why an instance is gone. An absence without a reason is unexplained, and agents doubt it. */
export const removalReasonSchema = z.enum(["deregistered", "expired"]);
export type RemovalReason = z.output<typeof removalReasonSchema>;

const removalSchema = z.object({ id: z.string(), reason: removalReasonSchema, revision: z.int() });
export type Removal = z.output<typeof removalSchema>;

/** The whole state of a realm at one position. */
export const snapshotSchema = positionSchema.extend({
  realm: realmName,
  services: z.record(serviceName, readDefinitionSchema),
  instances: z.array(instanceSchema),
  /** Removals of the last 24 h with their reasons. */
  removed: z.array(removalSchema),
});
export type Snapshot = {
  readonly generation: number;
  readonly revision: number;
  readonly realm: string;
  readonly services: Readonly<Record<string, Definition>>;
  readonly instances: readonly Instance[];
  readonly removed: readonly Removal[];
};

/** The change from `since` to `revision`, within one generation. */
export const deltaSchema = positionSchema.extend({
  since: z.int(),
  /** Somebody waits for this change to be applied: ack at once. */
  ack: z.boolean().optional(),
  services: z.object({ put: z.record(serviceName, readDefinitionSchema), delete: z.array(z.string()) }),
  instances: z.object({
    put: z.array(instanceSchema),
    delete: z.array(z.object({ id: z.string(), reason: removalReasonSchema.optional() })),
  }),
});
export type Delta = {
  readonly generation: number;
  readonly revision: number;
  readonly since: number;
  readonly ack?: boolean | undefined;
  readonly services: { readonly put: Readonly<Record<string, Definition>>; readonly delete: readonly string[] };
  readonly instances: {
    readonly put: readonly Instance[];
    /** No reason: the removal is unexplained (a znode deleted by hand). */
    readonly delete: readonly { readonly id: string; readonly reason?: RemovalReason | undefined }[];
  };
};

export const heartbeatSchema = positionSchema.extend({ agents: z.int() });
export type Heartbeat = z.output<typeof heartbeatSchema>;

export const settingsEventSchema = z.object({
  service: serviceName,
  version: z.int(),
  values: z.record(z.string(), z.unknown()),
});
export type SettingsEvent = z.output<typeof settingsEventSchema>;

/** Before anything was ever received. Generation 0 is older than every real one. */
export function emptySnapshot(realm: string): Snapshot {
  return { generation: 0, revision: 0, realm, services: {}, instances: [], removed: [] };
}

/**
 * The snapshot after a delta, or undefined when the delta does not follow it (another generation, or a gap): the
 * reader must ask for a snapshot. Never mutates.
 */
export function applyDelta(snapshot: Snapshot, delta: Delta): Snapshot | undefined {
  if (delta.generation !== snapshot.generation || delta.since !== snapshot.revision) return undefined;
  return {
    ...snapshot,
    revision: delta.revision,
    services: applyServices(snapshot.services, delta.services),
    instances: applyInstances(snapshot.instances, delta.instances),
    removed: applyRemoved(snapshot.removed, delta),
  };
}

// what a delta does not touch stays the same object: with 10,000 instances most deltas change one

function applyServices(services: Snapshot["services"], change: Delta["services"]): Snapshot["services"] {
  if (change.delete.length === 0 && Object.keys(change.put).length === 0) return services;
  const next = { ...services, ...change.put };
  for (const service of change.delete) delete next[service];
  return next;
}

function applyInstances(instances: readonly Instance[], change: Delta["instances"]): readonly Instance[] {
  if (change.delete.length === 0 && change.put.length === 0) return instances;
  const put = new Map(change.put.map((instance) => [instance.id, instance]));
  const deleted = new Set(change.delete.map(({ id }) => id));
  const next: Instance[] = [];
  for (const instance of instances) {
    const newer = put.get(instance.id);
    put.delete(instance.id);
    if (newer !== undefined) next.push(newer);
    else if (!deleted.has(instance.id)) next.push(instance);
  }
  return [...next, ...put.values()];
}

/**
 * A reader of deltas keeps so many removals, the newest, and always those of the last delta: nobody tells it when 24 h are
 * over, and a reason is only asked for in the moment of a removal. Months of deploys would fill the memory otherwise.
 */
const REMOVED_KEPT = 1_000;

function applyRemoved(removed: readonly Removal[], { revision, instances }: Delta): readonly Removal[] {
  if (instances.delete.length === 0 && (removed.length === 0 || instances.put.length === 0)) return removed;
  const next = new Map(removed.map((removal) => [removal.id, removal]));
  for (const { id, reason } of instances.delete) {
    // an unexplained removal leaves no reason of an earlier one behind
    next.delete(id);
    if (reason !== undefined) next.set(id, { id, reason, revision });
  }
  for (const { id } of instances.put) next.delete(id);
  return [...next.values()].slice(-Math.max(REMOVED_KEPT, instances.delete.length));
}

/**
 * Deltas in a row as one: what a watcher that coalesces 20 ms of changes, or missed some, is sent. One pass, however many.
 * Each must follow the one before.
 */
export function mergeDeltas(first: Delta, ...more: readonly Delta[]): Delta {
  if (more.length === 0) return first;
  let last = first;
  let ack = false;
  const services = new Map<string, Definition>();
  const deletedServices = new Set<string>();
  const put = new Map<string, Instance>();
  const deleted = new Map<string, Delta["instances"]["delete"][number]>();
  for (const delta of [first, ...more]) {
    for (const service of delta.services.delete) {
      services.delete(service);
      deletedServices.add(service);
    }
    for (const [service, definition] of Object.entries(delta.services.put)) {
      services.set(service, definition);
      deletedServices.delete(service);
    }
    for (const removal of delta.instances.delete) {
      put.delete(removal.id);
      deleted.set(removal.id, removal);
    }
    for (const instance of delta.instances.put) {
      put.set(instance.id, instance);
      deleted.delete(instance.id);
    }
    ack ||= delta.ack === true;
    last = delta;
  }
  return {
    generation: last.generation,
    revision: last.revision,
    since: first.since,
    ...(ack ? { ack } : {}),
    services: { put: Object.fromEntries(services), delete: [...deletedServices] },
    instances: { put: [...put.values()], delete: [...deleted.values()] },
  };
}
