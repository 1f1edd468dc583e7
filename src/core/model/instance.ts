import { z } from "zod";
import { hostName, instanceId, instanceNameSchema, label, parseInstanceName, port, serviceName } from "./names.ts";

const weight = z.int().min(0).max(256);
const healthy = z.boolean().nullable();

/** The body of `PUT …/instances/:instance`. Without `enabled` the operator's last word stays. */
export const putInstanceSchema = z.strictObject({
  port,
  address: hostName.optional(),
  enabled: z.boolean().optional(),
  weight: weight.optional(),
  zone: label.optional(),
  version: label.optional(),
  agent: hostName.optional(),
  healthy: healthy.optional(),
  draining: z.boolean().optional(),
});
export type PutInstance = z.output<typeof putInstanceSchema>;

/** The body of `PATCH …/instances/:instance`: at least one of these. */
export const patchInstanceSchema = z
  .strictObject({
    enabled: z.boolean().optional(),
    weight: weight.optional(),
    zone: label.optional(),
    version: label.optional(),
    healthy: healthy.optional(),
    draining: z.boolean().optional(),
  })
  .refine(
    (patch) => Object.keys(patch).length > 0,
    "say what to change: enabled, weight, zone, version, healthy or draining",
  );
export type PatchInstance = z.output<typeof patchInstanceSchema>;

/** One running copy of a service, as every stream and every reader sees it. */
export const instanceSchema = z.object({
  id: z.string(),
  service: serviceName,
  instance: instanceNameSchema,
  host: hostName,
  address: hostName,
  port,
  /** The operator's intent; only he changes it. */
  enabled: z.boolean(),
  /** What checks say; null when nobody checked: HAProxy's own checks decide. */
  healthy,
  /** The instance itself is leaving. */
  draining: z.boolean(),
  weight,
  zone: z.string(),
  version: z.string(),
  /** The host whose agent's lease keeps it alive, or null: it lives until deleted. */
  agent: z.string().nullable(),
});
export type Instance = z.output<typeof instanceSchema>;

/** What a registration says: an instance without the operator's intent, which outlives it. */
export type Registration = Omit<Instance, "enabled">;

/**
 * The registration that a PUT makes. A PUT replaces all that the registrant owns; what it leaves out takes the default
 * (address: the host; weight 100; healthy null; draining false).
 */
export function registrationFromPut(service: string, instance: string, put: PutInstance): Registration {
  const host = parseInstanceName(instance)?.host ?? instance;
  return {
    id: instanceId(service, instance),
    service,
    instance,
    host,
    address: put.address ?? host,
    port: put.port,
    healthy: put.healthy ?? null,
    draining: put.draining ?? false,
    weight: put.weight ?? 100,
    zone: put.zone ?? "",
    version: put.version ?? "",
    agent: put.agent ?? null,
  };
}

/** True when requests may go there: enabled, not draining, and no check says no. */
export function isUsable(instance: Pick<Instance, "enabled" | "draining" | "healthy">): boolean {
  return instance.enabled && !instance.draining && instance.healthy !== false;
}

/** Equal in every field: the test behind "writing the same thing twice changes nothing". */
export function sameInstance(a: Instance, b: Instance): boolean {
  return (Object.keys(instanceSchema.shape) as (keyof Instance)[]).every((key) => a[key] === b[key]);
}
