// What `serve` and the sidecar say to each other over the sidecar's socket.
import { z } from "zod";
import { hostName, port } from "./names.ts";
import { putInstanceSchema } from "./instance.ts";
import { positionSchema } from "./position.ts";
import { realmName } from "./realm.ts";
import { definitionSchema } from "./service.ts";

/** `PUT /v1/local/:service/:instance`: this instance lives here, and will say so again before `ttlMs` ends. */
export const putLocalSchema = z.strictObject({
  ...putInstanceSchema.pick({ port: true, address: true, weight: true, zone: true, version: true }).shape,
  /** Published when given: at the start of an instance, not with every repetition. */
  definition: definitionSchema.optional(),
  ttlMs: z.int().min(1_000).max(3_600_000).default(30_000),
});
export type PutLocal = z.output<typeof putLocalSchema>;

/** `PATCH /v1/local/:service/:instance`: the instance is leaving. */
export const patchLocalSchema = z.strictObject({ draining: z.literal(true) });

/** The answer to a write over the socket. */
export const localWrittenSchema = positionSchema.extend({
  /** Atlas has it. False: Atlas is away or refused; this host does as it was told, and the sidecar keeps trying. */
  registered: z.boolean(),
  /** Why Atlas does not have it, or has it in another form. */
  problem: z.string().optional(),
  /** With `?wait=applied`: so many of so many agents run it. */
  applied: z.int().optional(),
  total: z.int().optional(),
});
export type LocalWritten = z.output<typeof localWrittenSchema>;

/** `GET /v1/info` of the sidecar: who this host is. */
export const sidecarInfoSchema = z.object({
  realm: realmName,
  host: hostName,
  address: hostName,
  zone: z.string(),
  version: z.string(),
  /** Where requests go: the HAProxy of this host, as a URL. */
  router: z.string(),
  atlas: z.object({ connected: z.boolean(), url: z.string().optional() }),
  generation: z.int(),
  revision: z.int(),
});
export type SidecarInfo = z.output<typeof sidecarInfoSchema>;

/** One server of `GET /v1/why/:service`. */
const whyServerSchema = z.object({
  instance: z.string(),
  address: z.string(),
  port,
  /** HAProxy's word: `UP`, `DOWN`, `DRAIN`, `MAINT`, …, or `ABSENT` when it does not know the server. */
  haproxy: z.string(),
  usable: z.boolean(),
  because: z.string(),
});

/** `GET /v1/why/:service`: why requests of this host go where they go. */
export const whySchema = z.object({
  service: z.string(),
  host: z.string(),
  known: z.boolean(),
  usable: z.int(),
  total: z.int(),
  servers: z.array(whyServerSchema),
  revision: z.int(),
  generation: z.int(),
  atlas: z.object({ connected: z.boolean() }),
  lastReload: z.object({ at: z.string(), reasons: z.array(z.string()) }).nullable(),
  notes: z.array(z.string()),
});
export type Why = z.output<typeof whySchema>;
