// What a realm holds, as an import compares it: pure, so that a dry run and the import itself cannot differ.
import { isDeepStrictEqual } from "node:util";
import type { Backup, BackupDefinition, BackupSettings } from "../core/model/backup.ts";
import { sameInstance } from "../core/model/instance.ts";

/** Everything that an import replaces, with versions resolved; undefined where the store has lost what it should have. */
export type Content = Pick<Backup, "instances" | "away" | "ports"> & {
  readonly definitions: ReadonlyMap<string, BackupDefinition | undefined>;
  readonly settings: ReadonlyMap<string, BackupSettings["values"] | undefined>;
};

/** What of one kind is there afterwards, and how that differs from what was. */
export type Difference = {
  readonly total: number;
  readonly added: number;
  readonly changed: number;
  readonly removed: number;
};

export function contentOf({ definitions, settings, instances, away, ports }: Backup): Content {
  const current = [...settings].map(([service, history]) => [service, history.at(-1)?.values ?? {}] as const);
  return { definitions, settings: new Map(current), instances, away, ports };
}

export function differences(before: Content, after: Content) {
  const set = (ids: ReadonlySet<string>): ReadonlyMap<string, true> => new Map([...ids].map((id) => [id, true]));
  return {
    services: difference(before.definitions, after.definitions, sameDefinition),
    instances: difference(before.instances, after.instances, sameInstance),
    intents: difference(set(before.away), set(after.away), () => true),
    settings: difference(before.settings, after.settings, isDeepStrictEqual),
    ports: difference(before.ports, after.ports, (a, b) => a === b),
  };
}

function difference<T>(
  before: ReadonlyMap<string, T>,
  after: ReadonlyMap<string, T>,
  same: (a: T, b: T) => boolean,
): Difference {
  let added = 0;
  let changed = 0;
  for (const [key, value] of after) {
    if (!before.has(key)) added += 1;
    else if (!same(before.get(key) as T, value)) changed += 1;
  }
  return { total: after.size, added, changed, removed: before.size - (after.size - added) };
}

export function counts({ definitions, settings, instances, away, ports }: Content) {
  return {
    services: definitions.size,
    instances: instances.size,
    intents: away.size,
    settings: settings.size,
    ports: ports.size,
  };
}

export function isEmpty(content: Content): boolean {
  return Object.values(counts(content)).every((count) => count === 0);
}

export function sameDefinition(a: BackupDefinition | undefined, b: BackupDefinition | undefined): boolean {
  return isDeepStrictEqual(a?.definition, b?.definition) && isDeepStrictEqual(a?.published, b?.published);
}
