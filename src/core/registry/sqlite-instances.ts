// What decisions do to instances: to the rows in the file and, in step, to the draft in memory.
import type { Database } from "bun:sqlite";
import { Fault } from "../lib/errors.ts";
import { type Instance, sameInstance } from "../model/instance.ts";
import type { RemovalReason } from "../model/snapshot.ts";
import type { InstanceDecision, InstanceRecord } from "./live-store.ts";
import { type Draft, registrationOf } from "./sqlite-draft.ts";

/** Which instance a write is about. */
export type Target = { readonly service: string; readonly instance: string; readonly id: string };

/** Carries out a decision. Returns whether anything changed. */
export function obey(
  db: Database,
  draft: Draft,
  target: Target,
  current: InstanceRecord | undefined,
  decision: InstanceDecision,
  now: number,
): boolean {
  const { id, service, instance: name } = target;
  const instance = draft.instances.now.get(id);
  switch (decision.kind) {
    case "keep":
      return false;
    case "put": {
      if (!draft.definitions.now.has(service))
        throw new Fault({ code: "conflict", message: `${service} is not defined`, hint: "Define the service first." });
      const next: Instance = { ...decision.registration, enabled: decision.enabled };
      if (instance !== undefined && sameInstance(instance, next)) return false;
      put(db, draft, next);
      return true;
    }
    case "intend": {
      if (current === undefined) throw new Fault({ code: "not_found", message: `there is no instance ${id}` });
      if (current.enabled === decision.enabled) return false;
      if (instance === undefined) forget(db, draft, target);
      else put(db, draft, { ...instance, enabled: decision.enabled });
      return true;
    }
    case "remove": {
      if (current === undefined) return false;
      if (instance === undefined && !decision.forget) return false;
      if (instance !== undefined) remove(db, draft, instance, decision.reason, now);
      if (current.enabled || decision.forget) forget(db, draft, target);
      else {
        db.query("INSERT OR REPLACE INTO instances VALUES (?, ?, 0, NULL)").run(service, name);
        draft.away.edit().set(id, true);
      }
      return true;
    }
  }
}

function put(db: Database, draft: Draft, instance: Instance): void {
  const { id, service } = instance;
  db.query("INSERT OR REPLACE INTO instances VALUES (?, ?, ?, ?)").run(
    service,
    instance.instance,
    instance.enabled ? 1 : 0,
    JSON.stringify(registrationOf(instance)),
  );
  draft.instances.edit().set(id, instance);
  if (draft.away.now.has(id)) draft.away.edit().delete(id);
  if (draft.removed.now.has(id)) {
    db.query("DELETE FROM removed WHERE id = ?").run(id);
    draft.removed.edit().delete(id);
    draft.removedAt.edit().delete(id);
  }
  draft.touchedInstances.add(id);
  draft.moved = true;
}

/** Takes an instance out and keeps the reason; the row in `instances` is the caller's to settle. */
export function remove(db: Database, draft: Draft, instance: Instance, reason: RemovalReason, now: number): void {
  const { id } = instance;
  db.query("INSERT OR REPLACE INTO removed VALUES (?, ?, ?, ?)").run(id, reason, draft.revision, now);
  draft.removed.edit().set(id, { id, reason, revision: draft.revision });
  draft.removedAt.edit().set(id, now);
  draft.instances.edit().delete(id);
  draft.touchedInstances.add(id);
  draft.moved = true;
}

/** Drops all that is kept of an instance that is away. */
function forget(db: Database, draft: Draft, { service, instance, id }: Target): void {
  db.query("DELETE FROM instances WHERE service = ? AND instance = ?").run(service, instance);
  if (draft.away.now.has(id)) draft.away.edit().delete(id);
  draft.moved = true;
}

/** Drops removals from before `oldest`. Returns whether there were any. */
export function purge(db: Database, draft: Draft, oldest: number): boolean {
  const due = [...draft.removedAt.now].filter(([, at]) => at < oldest);
  if (due.length === 0) return false;
  db.query("DELETE FROM removed WHERE at < ?").run(oldest);
  for (const [id] of due) {
    draft.removed.edit().delete(id);
    draft.removedAt.edit().delete(id);
  }
  draft.moved = true;
  return true;
}
