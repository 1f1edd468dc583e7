import { z } from "zod";
import { hostName, instanceNameSchema, serviceName } from "./names.ts";
import { positionSchema } from "./position.ts";

/**
 * What an agent refused, in words. A service stays in its last good form on that host; with `instance` it is that one alone,
 * which is left out (its address does not resolve there), and refuses only writes about it.
 */
export const rejectionSchema = z.object({
  service: serviceName,
  instance: instanceNameSchema.optional(),
  error: z.string().max(2_000),
});
export type Rejection = z.output<typeof rejectionSchema>;

/** `POST /v1/agents/:host/acks`: this host's HAProxy runs that position (read back, not hoped). */
export const ackSchema = positionSchema.extend({
  rejected: z.array(rejectionSchema).default([]),
  reloaded: z.boolean().default(false),
  /** From the event's arrival to the end of the read-back. */
  tookMs: z.number().min(0).default(0),
});
export type Ack = z.output<typeof ackSchema>;

/** One line of `GET /v1/agents`. `lag` is how many revisions the host is behind. */
export const agentSchema = z.object({
  host: hostName,
  zone: z.string(),
  version: z.string(),
  connected: z.boolean(),
  appliedRevision: z.int().nullable(),
  lag: z.int().nullable(),
  rejected: z.array(rejectionSchema),
});
export type Agent = z.output<typeof agentSchema>;
