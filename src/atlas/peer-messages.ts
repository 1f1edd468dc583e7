// What replicas tell each other: one stream of events from each to each, and one question.
import { z } from "zod";
import { rejectionSchema } from "../core/model/agent.ts";
import { hostName } from "../core/model/names.ts";
import { positionSchema } from "../core/model/position.ts";

const ackSchema = positionSchema.extend({ host: hostName, boot: z.string(), rejected: z.array(rejectionSchema) });
const acksSchema = z.array(ackSchema);

/** What is waited for at the sender, and whether it stopped expiry by its own count. */
const stateSchema = z.object({
  waits: z.object({ writes: z.int().min(0), positions: z.array(positionSchema) }),
  holds: z.boolean(),
});

/** The first event: who this is, and all that the others will hear changes of. */
const helloSchema = stateSchema.extend({ replica: z.string(), acks: acksSchema });

const forgottenSchema = z.object({ host: hostName });

/** The events of `GET /v1/peer/feed` by name. `heartbeat` says that the sender lives. */
export const feedSchemas = {
  hello: helloSchema,
  acks: acksSchema,
  state: stateSchema,
  forgotten: forgottenSchema,
  heartbeat: z.object({}),
} as const;

/** `GET /v1/peer/agents/HOST`: the agent that has a stream open there and keeps acking. */
export const presenceSchema = z.object({ boot: z.string().nullable() });

/** A sender says something at least so often, in ms. */
export const FEED_HEARTBEAT_MS = 1_000;
