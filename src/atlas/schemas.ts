// What requests to Atlas carry besides the model's own types, and what it answers.
import { z } from "zod";
import { importedSchema, progressSchema } from "../core/model/answers.ts";
import { instanceSchema } from "../core/model/instance.ts";
import { hostName, instanceNameSchema, label, port, serviceName } from "../core/model/names.ts";
import { parsePosition, positionSchema } from "../core/model/position.ts";
import { readDefinitionSchema } from "../core/model/service.ts";
import { settingsValuesSchema } from "../core/model/settings.ts";

const UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000 };
const MAX_WAIT_MS = 600_000;

/** `10s`, `500ms`, `1m`, at most ten minutes; in ms. */
const waitTime = z
  .string()
  .regex(/^\d{1,6}(ms|s|m)$/, "a time is a number with ms, s or m, such as 10s")
  .transform((text) => Number.parseInt(text, 10) * (UNITS_MS[/[a-z]+$/.exec(text)?.[0] ?? "ms"] ?? 1))
  .refine((ms) => ms <= MAX_WAIT_MS, "nobody waits longer than 10m");

const flag = z.enum(["true", "false"], "is true or false").transform((text) => text === "true");

/** Comma-separated names, each checked. */
const serviceList = z
  .string()
  .transform((text) => text.split(","))
  .pipe(z.array(serviceName).min(1).max(1_000));

/** A mistyped parameter of a write is refused, so that no `?wiat=applied` goes unnoticed. */
export const writeQuery = z.strictObject({
  wait: z.literal("applied", "the only thing to wait for is applied").optional(),
  timeout: waitTime.prefault("10s"),
  /** Why, for the audit trail. */
  reason: z
    .string()
    .max(500)
    .regex(/^[^\p{Cc}]*$/u, "no control characters")
    .optional(),
});
export const publishQuery = writeQuery.extend({ publish: flag.optional() });
export const forceQuery = writeQuery.extend({ force: flag.optional() });
/** `agent`: it is that host's agent that writes. */
export const agentQuery = writeQuery.extend({ agent: hostName.optional() });
/** `expired`: its agent gives it up, since it neither spoke nor answered; others may look for themselves. */
export const removeQuery = agentQuery.extend({ expired: flag.optional() });
export const exportQuery = z.strictObject({ audit: flag.optional() });
export const importQuery = writeQuery.extend({
  /** Of a registry that is not empty. */
  replace: flag.optional(),
  dryRun: flag.optional(),
  /** Take the backup of another realm. */
  forceRealm: flag.optional(),
});
export const limitQuery = z.object({
  limit: z
    .string()
    .regex(/^\d{1,4}$/, "is a number, 1 to 1000")
    .transform(Number)
    .pipe(z.int().min(1).max(1_000))
    .prefault("100"),
});

export const watchQuery = z
  .object({
    service: serviceList.optional(),
    settings: serviceList.optional(),
    /** Malformed: a snapshot, never an error. */
    since: z.string().transform(parsePosition).optional(),
    agent: hostName.optional(),
    boot: label.min(1).optional(),
    zone: label.prefault(""),
    version: label.prefault(""),
  })
  .refine(({ agent, boot }) => (agent === undefined) === (boot === undefined), {
    path: ["boot"],
    message: "agent and boot go together",
  });

export const noParams = z.object({});
export const noQuery = z.object({});
export const serviceParams = z.object({ service: serviceName });
export const instanceParams = z.object({ service: serviceName, instance: instanceNameSchema });
export const hostParams = z.object({ host: hostName });
export const revisionParams = z.object({
  revision: z
    .string()
    .regex(/^\d{1,16}$/, "a revision is a number")
    .transform(Number)
    .pipe(z.int().min(0)),
});

export const putSettingsSchema = z.strictObject({ values: settingsValuesSchema });
export const reservePortSchema = z.strictObject({ service: serviceName });

/** The answer to every write. `changed` is false when everything was so already. */
export const writtenSchema = positionSchema.extend({
  changed: z.boolean(),
  applied: z.int().optional(),
  total: z.int().optional(),
});
export const settingsWrittenSchema = writtenSchema.extend({ version: z.int() });
export const portWrittenSchema = writtenSchema.extend({ service: serviceName, port });

export const importWrittenSchema = writtenSchema.extend(importedSchema.shape);

export const serviceSchema = z.object({ definition: readDefinitionSchema, instances: z.array(instanceSchema) });
export const changeSchema = progressSchema.extend({ revision: z.int() });
export const statusSchema = z.object({ status: z.string(), degraded: z.array(z.string()).optional() });
/** RFC 9457 with our `code`; some codes add members of their own. */
export const problemSchema = z.object({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  code: z.string(),
  requestId: z.string(),
  errors: z.array(z.object({ path: z.string(), message: z.string() })).optional(),
});
/** The shape of Runscope's open-source healthcheck library. */
export const healthcheckSchema = z.object({
  hostname: z.string(),
  status: z.enum(["success", "failure"]),
  timestamp: z.number(),
  results: z.array(
    z.object({
      checker: z.string(),
      output: z.string(),
      passed: z.boolean(),
      timestamp: z.number(),
      expires: z.number(),
    }),
  ),
});
