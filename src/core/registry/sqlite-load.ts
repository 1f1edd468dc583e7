// Reading a file of the embedded store: whose it is, and all that it holds of live state.
import type { Database } from "bun:sqlite";
import { z } from "zod";
import { Fault } from "../lib/errors.ts";
import { type Instance, instanceSchema } from "../model/instance.ts";
import { instanceId } from "../model/names.ts";
import { removalReasonSchema } from "../model/snapshot.ts";
import type { LiveState } from "./live-store.ts";
import type { Held } from "./sqlite-draft.ts";

const registrationSchema = instanceSchema.omit({ enabled: true });

/** Who this file is: made at its first opening. Returns its generation. */
export function identify(db: Database, realm: string, now: number): number {
  const fact = db.query<{ value: unknown }, [string]>("SELECT value FROM facts WHERE name = ?");
  const set = db.query("INSERT OR IGNORE INTO facts VALUES (?, ?)");
  set.run("realm", realm);
  set.run("generation", Math.floor(now / 1_000));
  set.run("revision", 0);
  const owner = String(fact.get("realm")?.value);
  if (owner !== realm) {
    throw new Fault({
      code: "store_realm",
      message: `this data directory holds the realm ${owner}, not ${realm}`,
      hint: "Give every realm a --data-dir of its own.",
    });
  }
  return Number(fact.get("generation")?.value);
}

const instanceRows = z.array(
  z.object({ service: z.string(), instance: z.string(), enabled: z.int(), registration: z.string().nullable() }),
);
const removedRows = z.array(
  z.object({ id: z.string(), reason: removalReasonSchema, revision: z.int(), at: z.number() }),
);
const versionRows = z.array(z.object({ service: z.string(), version: z.int() }));

/** @throws Fault `store_unreadable` when a row is not what this program writes */
export function load(db: Database, generation: number, path: string): Held {
  try {
    const rows = instanceRows.parse(db.query("SELECT * FROM instances").all());
    const instances = rows.flatMap(({ enabled, registration }): [string, Instance][] => {
      if (registration === null) return [];
      const instance = { ...registrationSchema.parse(JSON.parse(registration)), enabled: enabled === 1 };
      return [[instance.id, instance]];
    });
    const removed = removedRows.parse(db.query("SELECT * FROM removed").all());
    const state: LiveState = {
      generation,
      revision: Number(
        db.query<{ value: unknown }, []>("SELECT value FROM facts WHERE name = 'revision'").get()?.value,
      ),
      definitions: versions(db.query("SELECT * FROM definitions").all()),
      settings: versions(db.query("SELECT * FROM settings").all()),
      instances: new Map(instances),
      removed: new Map(removed.map(({ id, reason, revision }) => [id, { id, reason, revision }])),
    };
    return {
      state,
      removedAt: new Map(removed.map(({ id, at }) => [id, at])),
      away: new Map(
        rows.filter((row) => row.registration === null).map((row) => [instanceId(row.service, row.instance), true]),
      ),
    };
  } catch (error) {
    throw new Fault({
      code: "store_unreadable",
      message: `${path} holds something that is no registry`,
      hint: "Restore it from a backup, or move it away to begin with an empty registry.",
      cause: error,
    });
  }
}

function versions(rows: unknown): ReadonlyMap<string, number> {
  return new Map(versionRows.parse(rows).map(({ service, version }) => [service, version]));
}
