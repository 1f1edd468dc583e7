// What Atlas answers besides the model's own types, as it describes it and as its readers take it: readers ignore fields they
// do not know, and take any word where a newer Atlas may have a new one.
import { z } from "zod";
import { rejectionSchema } from "./agent.ts";
import { hostName, port, serviceName } from "./names.ts";
import { positionSchema } from "./position.ts";
import { realmName } from "./realm.ts";
import { settingsSchema } from "./settings.ts";

/** `GET /v1/info`. `degraded` is absent when all is well. */
export const infoSchema = positionSchema.extend({
  realm: realmName,
  version: z.string(),
  /** `embedded` or `cluster`. */
  store: z.string(),
  replicas: z.int(),
  degraded: z.array(z.string()).optional(),
  /**
   * Of the last five minutes and the hosts that this replica hears: the 99th percentile of the time from a change's arrival at
   * a host until its HAProxy was read back to run it, in ms. Absent when nothing changed.
   */
  appliedP99Ms: z.number().optional(),
});
export type Info = z.output<typeof infoSchema>;

/** How far a revision has come; `GET /v1/changes/:revision` adds the revision. */
export const progressSchema = z.object({
  applied: z.int(),
  total: z.int(),
  /** Connected, and not there yet. */
  pending: z.array(hostName),
  /** Not connected: their HAProxy may still route by an older revision. */
  unreachable: z.array(hostName),
  rejected: z.array(rejectionSchema.extend({ host: hostName })),
});

/** One of `GET /v1/ports`. */
export const portSchema = z.object({ service: serviceName, port });

/** `GET /v1/settings/:service/history`, newest first. */
export const settingsHistorySchema = z.array(settingsSchema.extend({ at: z.iso.datetime(), who: z.string() }));

/** One entry of the audit trail: who changed what, from where and why. */
export const auditEntrySchema = z.object({
  at: z.iso.datetime(),
  who: z.string(),
  from: z.string(),
  kind: z.string(),
  target: z.string(),
  reason: z.string().optional(),
  before: z.unknown(),
  after: z.unknown(),
});
export type AuditEntry = z.output<typeof auditEntrySchema>;

/** `GET /v1/audit`, newest first. */
export const auditSchema = z.array(auditEntrySchema);

const differenceSchema = z.object({ total: z.int(), added: z.int(), changed: z.int(), removed: z.int() });

/** What `POST /v1/import` did, or with `dryRun` would do, besides what every write answers. `at`: when the backup was made. */
export const importedSchema = z.object({
  dryRun: z.boolean(),
  realm: realmName,
  at: z.iso.datetime(),
  services: differenceSchema,
  instances: differenceSchema,
  /** Instances that are away and disabled. */
  intents: differenceSchema,
  settings: differenceSchema,
  ports: differenceSchema,
  /** Entries of the audit trail that were missing. */
  audit: z.int(),
});
