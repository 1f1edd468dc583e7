// Replacing everything that the embedded store holds of live state by what a backup holds.
import type { Database } from "bun:sqlite";
import { instanceId } from "../model/names.ts";
import type { LiveContent } from "./live-store.ts";
import { type Draft, registrationOf } from "./sqlite-draft.ts";

/** @param now in ms since the epoch */
export function restore(db: Database, draft: Draft, content: LiveContent, now: number): void {
  const { definitions, settings, instances, away } = content;
  for (const table of ["instances", "removed", "definitions", "settings"]) db.run(`DELETE FROM ${table}`);
  const instance = db.query("INSERT INTO instances VALUES (?, ?, ?, ?)");
  for (const one of instances) {
    instance.run(one.service, one.instance, one.enabled ? 1 : 0, JSON.stringify(registrationOf(one)));
  }
  for (const one of away) instance.run(one.service, one.instance, 0, null);
  for (const [service, version] of definitions) db.query("INSERT INTO definitions VALUES (?, ?)").run(service, version);
  for (const [service, version] of settings) db.query("INSERT INTO settings VALUES (?, ?)").run(service, version);
  draft.generation = Math.max(draft.base.generation + 1, Math.floor(now / 1_000));
  db.query("UPDATE facts SET value = ? WHERE name = 'generation'").run(draft.generation);
  draft.definitions.replace(new Map(definitions));
  draft.settings.replace(new Map(settings));
  draft.instances.replace(new Map(instances.map((one) => [one.id, one])));
  draft.away.replace(new Map(away.map((one) => [instanceId(one.service, one.instance), true])));
  draft.removed.replace(new Map());
  draft.removedAt.replace(new Map());
  draft.moved = true;
}
