import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { label, port, serviceName } from "./names.ts";

const milliseconds = z.int().min(1).max(86_400_000);

/** A request path that can stand in an HAProxy configuration line: no blanks, quotes, backslashes or control characters. */
const requestPath = z
  .string()
  .max(512)
  .regex(/^\/[A-Za-z0-9\-._~!$&()*+,;=:@%/?]*$/, "a path begins with '/' and holds URL characters only");

/** Free text of one line, as it stands in tables and comments. */
const text = z
  .string()
  .max(1_000)
  .regex(/^[^\p{Cc}]*$/u, "no control characters");

const healthcheck = z.strictObject({
  path: requestPath.default("/healthcheck"),
  intervalMs: milliseconds.min(100).default(2_000),
  timeoutMs: milliseconds.default(1_000),
  rise: z.int().min(1).max(100).default(2),
  fall: z.int().min(1).max(100).default(3),
});

const timeouts = z.strictObject({
  /** Short on purpose: with 300 ms, three retries and redispatch a black-holed instance costs a request 300 ms, not seconds. */
  connectMs: milliseconds.default(300),
  queueMs: milliseconds.default(1_000),
  requestMs: milliseconds.default(30_000),
});

/**
 * A service's definition as a writer sends it: everything has a default, nothing unknown is accepted.
 * Optional keys without a default: `localPort` (tcp only), `slowStartMs`, `maxConnections`, `datastores`, `split`.
 */
export const definitionSchema = z
  .strictObject({
    description: text.default(""),
    owner: text.default(""),
    protocol: z.enum(["http", "h2c", "tcp"]).default("http"),
    localPort: port.optional(),
    healthcheck: healthcheck.prefault({}),
    // two random choices: leastconn ignores weights while few requests are in flight
    balance: z.enum(["random", "roundrobin", "leastconn"]).default("random"),
    timeouts: timeouts.prefault({}),
    retries: z.int().min(0).max(10).default(3),
    slowStartMs: milliseconds.optional(),
    maxConnections: z.int().min(1).max(1_000_000).optional(),
    datastores: z.array(text.min(1)).max(100).optional(),
    split: z.record(label.min(1), z.number().min(0).max(100)).optional(),
  })
  .superRefine((definition, context) => {
    if (definition.localPort !== undefined && definition.protocol !== "tcp") {
      context.addIssue({
        code: "custom",
        path: ["localPort"],
        message: "only a service of protocol tcp has a localPort",
      });
    }
    const shares = Object.values(definition.split ?? {});
    if (shares.length > 0 && Math.abs(shares.reduce((sum, share) => sum + share, 0) - 100) > 0.001) {
      context.addIssue({ code: "custom", path: ["split"], message: "the percentages of split add up to 100" });
    }
  });

export type Definition = z.output<typeof definitionSchema>;
export type DefinitionInput = z.input<typeof definitionSchema>;

/** What a service that nobody defined looks like. */
export const defaultDefinition: Definition = definitionSchema.parse({});

/**
 * A definition as a reader takes it: keys that a newer Atlas added are dropped, what is known is checked as ever.
 * (zod's strict objects reject unknown keys, so readers get the loose twin, made from the same shape.)
 */
export const readDefinitionSchema: z.ZodType<Definition> = z.looseObject({}).transform((raw, context) => {
  const known = pickKnown(raw, definitionSchema.shape);
  for (const [key, nested] of [["healthcheck", healthcheck] as const, ["timeouts", timeouts] as const]) {
    const value = known[key];
    if (typeof value === "object" && value !== null)
      known[key] = pickKnown(value as Record<string, unknown>, nested.shape);
  }
  const result = definitionSchema.safeParse(known);
  if (result.success) return result.data;
  for (const issue of result.error.issues)
    context.addIssue({ code: "custom", path: issue.path, message: issue.message });
  return z.NEVER;
});

function pickKnown(
  raw: Readonly<Record<string, unknown>>,
  shape: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  return Object.fromEntries(Object.entries(raw).filter(([key]) => Object.hasOwn(shape, key)));
}

/**
 * The definition after a service published `next`: what an operator edited (where `current` differs from what was
 * published before) stays, everything else follows the service. A three-way merge, key by key, one level into objects.
 * @param published what the service published last; undefined when it never did
 */
export function mergePublished(
  current: Definition | undefined,
  published: Definition | undefined,
  next: Definition,
): Definition {
  if (current === undefined) return next;
  const base = published ?? defaultDefinition;
  const merged = mergeThree(base, current, next);
  // these two make sense only together: an operator's edit of one is his word on both
  const edited = current.protocol !== base.protocol || current.localPort !== base.localPort;
  const { protocol, localPort } = edited ? current : next;
  const { localPort: _, ...others } = merged;
  return definitionSchema.parse({ ...others, protocol, ...(localPort === undefined ? {} : { localPort }) });
}

type Tree = Readonly<Record<string, unknown>>;

function mergeThree(base: Tree, edited: Tree, next: Tree): Tree {
  const keys = new Set([...Object.keys(edited), ...Object.keys(next)]);
  const merged: Record<string, unknown> = {};
  for (const key of keys) {
    const [was, mine, theirs] = [base[key], edited[key], next[key]];
    const nested = key === "healthcheck" || key === "timeouts";
    const value = nested
      ? mergeThree(was as Tree, mine as Tree, theirs as Tree)
      : isDeepStrictEqual(was, mine)
        ? theirs
        : mine;
    if (value !== undefined) merged[key] = value;
  }
  return merged;
}

/** One line of `GET /v1/services`. */
export const serviceSummarySchema = z.object({
  service: serviceName,
  owner: z.string(),
  instances: z.int(),
  enabled: z.int(),
  healthy: z.int(),
});
export type ServiceSummary = z.output<typeof serviceSummarySchema>;
