// What the operators' commands share: their options, writes that can wait until they are applied, and reading the state.
import { z } from "zod";
import { type AtlasClient, AtlasProblem, type AtlasRequest } from "../core/api/atlas-client.ts";
import { readProblem } from "../core/api/exchange.ts";
import { systemClock } from "../core/lib/clock.ts";
import { Fault } from "../core/lib/errors.ts";
import { readSse } from "../core/lib/sse.ts";
import { progressSchema } from "../core/model/answers.ts";
import { instanceSchema } from "../core/model/instance.ts";
import { instanceNameSchema, serviceName } from "../core/model/names.ts";
import { positionSchema } from "../core/model/position.ts";
import { type Snapshot, snapshotSchema } from "../core/model/snapshot.ts";
import { atlasOptions } from "./connection.ts";
import { usageError } from "./command.ts";
import { duration, option, shared, text, toggle } from "./options.ts";
import { plural } from "./table.ts";

/** Options of a command that asks Atlas. */
export const readOptions = { ...atlasOptions, json: shared.json } as const;

/** Options of a command that changes something. */
export const writeOptions = {
  ...readOptions,
  reason: option(text("TEXT"), "why, for the audit trail"),
  wait: option(toggle, "wait until every host's HAProxy runs the change", false),
  timeout: option(duration, "longest wait for --wait", 10_000),
} as const;

export type WriteValues = {
  readonly reason: string | undefined;
  readonly wait: boolean;
  readonly timeout: number;
};

export const writtenSchema = positionSchema.extend({
  changed: z.boolean().optional(),
  applied: z.int().optional(),
  total: z.int().optional(),
});

/** What became of one write. `tookMs` is from the request to the answer. */
export type Written = z.output<typeof writtenSchema> & { readonly tookMs: number };

/**
 * One write, waiting until it is applied when that was asked for.
 * @throws AtlasProblem `not_applied`, `rejected` (the write stands all the same) and others; Fault `unreachable`
 */
export async function write(
  client: AtlasClient,
  path: string,
  request: Pick<AtlasRequest<unknown>, "method" | "body" | "headers"> & {
    readonly query?: Readonly<Record<string, string>>;
  },
  values: WriteValues,
): Promise<Written> {
  const query = new URLSearchParams(request.query);
  if (values.reason !== undefined) query.set("reason", values.reason);
  if (values.wait) {
    query.set("wait", "applied");
    query.set("timeout", `${values.timeout}ms`);
  }
  const began = performance.now();
  let written = await client.request(query.size === 0 ? path : `${path}?${query.toString()}`, {
    ...request,
    schema: writtenSchema,
    // Atlas counts the wait; what is added is for the way there and back
    timeoutMs: (values.wait ? values.timeout : 0) + 10_000,
  });
  // Atlas waits for changes; whoever repeats a command after a timeout wants to know how far the first one has come
  if (values.wait && written.changed === false)
    written = { ...written, ...(await waitForRevision(client, written.revision, values.timeout)) };
  return { ...written, tookMs: Math.round(performance.now() - began) };
}

/** How often the progress of a revision is asked for, in ms: agents ack at most once a second when nobody waits in Atlas. */
const POLL_MS = 200;

/** @throws Fault `not_applied`, `rejected`, in words */
async function waitForRevision(
  client: AtlasClient,
  revision: number,
  timeoutMs: number,
): Promise<{ readonly applied: number; readonly total: number }> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const progress = await client.request(`/v1/changes/${revision}`, { schema: progressSchema });
    if (progress.rejected.length > 0) throw unapplied("rejected", "it was so already", timeoutMs, progress);
    if (progress.applied >= progress.total) return progress;
    if (performance.now() > deadline) throw unapplied("not_applied", "it was so already", timeoutMs, progress);
    await systemClock.sleep(POLL_MS);
  }
}

/** `, applied on 3 of 3 hosts in 14 ms`; or nothing when nobody waited. */
export function formatApplied({ applied, total, tookMs }: Written): string {
  if (applied === undefined || total === undefined) return "";
  return total === 0
    ? "; no host has a sidecar yet"
    : `, applied on ${applied} of ${plural(total, "host")} in ${tookMs} ms`;
}

/** `GET /v1/services/:service`. */
export const serviceDetailSchema = z.object({
  definition: z.record(z.string(), z.json()),
  instances: z.array(instanceSchema),
});

/** What a refusal tells of it: members may be missing. */
const reportedSchema = progressSchema.partial();

/** The fault of a write that stands in Atlas but not on every host, in words. Anything else comes back as it is. */
export function explainUnapplied(error: unknown, what: string, timeoutMs: number): unknown {
  if (!(error instanceof AtlasProblem) || (error.code !== "not_applied" && error.code !== "rejected")) return error;
  const progress = reportedSchema.safeParse(error.body);
  return unapplied(error.code, what, timeoutMs, progress.success ? progress.data : {});
}

function unapplied(
  code: "not_applied" | "rejected",
  what: string,
  timeoutMs: number,
  { pending = [], unreachable = [], rejected = [] }: z.output<typeof reportedSchema>,
): Fault {
  const lines = [
    ...rejected.map(({ host, service, error }) => `${host} refused ${service}: ${error.trim()}`),
    ...(pending.length === 0 ? [] : [`pending: ${pending.join(", ")}`]),
    ...(unreachable.length === 0 ? [] : [`unreachable: ${unreachable.join(", ")}`]),
  ];
  const why = code === "rejected" ? "a host refused it" : `not every host applied it within ${timeoutMs} ms`;
  return new Fault({
    code,
    message: [`${what}, but ${why}`, ...lines].join("\n  "),
    hint:
      code === "rejected"
        ? "It stands in Atlas. That host goes on with the service's last good form; smartstack agents shows it."
        : "It stands in Atlas; those hosts take it as soon as they can. smartstack agents shows them.",
  });
}

/** The whole state of the realm: the first event of a watch. @throws Fault `unreachable`, `bad_answer`; AtlasProblem */
export async function readSnapshot(client: AtlasClient): Promise<Snapshot> {
  const ending = new AbortController();
  const signal = AbortSignal.any([ending.signal, AbortSignal.timeout(10_000)]);
  try {
    const response = await client.fetch("/v1/watch", { headers: { accept: "text/event-stream" }, signal });
    if (!response.ok) throw new AtlasProblem(response.status, await readProblem(response), "GET /v1/watch");
    for await (const { event, data } of readSse(response.body ?? new ReadableStream())) {
      const parsed = event === "snapshot" ? snapshotSchema.safeParse(JSON.parse(data)) : undefined;
      if (parsed?.success) return parsed.data;
      throw new Fault({
        code: "bad_answer",
        message: `Atlas began its stream with a ${event} that is no usable snapshot`,
        hint: "Is that address really Atlas, and not older than this program?",
      });
    }
    throw new Fault({ code: "unreachable", message: "Atlas ended the stream before it sent anything" });
  } finally {
    ending.abort();
  }
}

/** Checks the SERVICE and INSTANCE arguments of a command. @throws Fault `usage` */
export function checkNames(command: { readonly name: string }, service: string | undefined, instance?: string): void {
  for (const [schema, name] of [
    [serviceName, service],
    [instanceNameSchema, instance],
  ] as const) {
    const issue = name === undefined ? undefined : schema.safeParse(name).error?.issues[0];
    if (issue !== undefined) throw usageError(command, `${issue.message}, not "${name}"`);
  }
}

export function servicePath(service: string): string {
  return `/v1/services/${encodeURIComponent(service)}`;
}

export function instancePath(service: string, instance: string): string {
  return `${servicePath(service)}/instances/${encodeURIComponent(instance)}`;
}
