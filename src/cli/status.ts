// status: the whole realm on one screen. `report` is pure; everything it needs is read at once.
import { z } from "zod";
import { type Agent, agentSchema, type Rejection } from "../core/model/agent.ts";
import { type AuditEntry, auditSchema, type Info, infoSchema } from "../core/model/answers.ts";
import { type Instance, isUsable } from "../core/model/instance.ts";
import type { Snapshot } from "../core/model/snapshot.ts";
import { type Command, defineCommand } from "./command.ts";
import { connectAtlas } from "./connection.ts";
import { EXIT } from "./exit-codes.ts";
import { readOptions, readSnapshot } from "./operator.ts";
import { answer } from "./output.ts";
import { formatAge, formatTable, paint, plural } from "./table.ts";

export const status: Command = defineCommand({
  name: "status",
  summary: "the realm on one screen: services, hosts, and what needs attention",
  options: readOptions,
  async run({ values, sources }) {
    const client = connectAtlas({ values, sources });
    const [info, snapshot, agents] = await Promise.all([
      client.request("/v1/info", { schema: infoSchema }),
      readSnapshot(client),
      client.request("/v1/agents", { schema: z.array(agentSchema) }),
    ]);
    // who disabled what is asked only when something is disabled
    const disabled = snapshot.instances.some((instance) => !instance.enabled);
    const audit = disabled ? await client.request("/v1/audit?limit=1000", { schema: auditSchema }) : [];
    const found = report(info, snapshot, agents, audit, Date.now());
    answer(values.json, found, () => formatReport(found));
    return EXIT.done;
  },
});

export type Report = {
  readonly realm: string;
  readonly generation: number;
  readonly revision: number;
  readonly replicas: number;
  readonly degraded: readonly string[];
  /** How long hosts take to apply a change, in ms; see `infoSchema`. */
  readonly appliedP99Ms: number | undefined;
  readonly hosts: { readonly applied: number; readonly total: number };
  readonly services: readonly {
    readonly service: string;
    readonly usable: number;
    readonly total: number;
    readonly owner: string;
    readonly notes: readonly string[];
  }[];
  /** Hosts that need attention, with why. */
  readonly troubled: readonly { readonly host: string; readonly note: string }[];
};

/** Pure: what there is to say. @param now in ms since the epoch */
export function report(
  info: Info,
  snapshot: Snapshot,
  agents: readonly Agent[],
  audit: readonly AuditEntry[],
  now: number,
): Report {
  const instances = Map.groupBy(snapshot.instances, ({ service }) => service);
  const troubled = agents.flatMap((agent) => {
    const note = noteOnHost(agent);
    return note === undefined ? [] : [{ host: agent.host, note }];
  });
  return {
    realm: info.realm,
    generation: info.generation,
    revision: info.revision,
    replicas: info.replicas,
    degraded: info.degraded ?? [],
    appliedP99Ms: info.appliedP99Ms,
    hosts: {
      applied: agents.filter((agent) => agent.lag === 0 && agent.rejected.length === 0).length,
      total: agents.length,
    },
    services: Object.keys(snapshot.services)
      .sort()
      .map((service) => {
        const own = instances.get(service) ?? [];
        return {
          service,
          usable: own.filter(isUsable).length,
          total: own.length,
          owner: snapshot.services[service]?.owner ?? "",
          notes: own.length === 0 ? ["no instances"] : notesOnInstances(own, audit, now),
        };
      }),
    troubled,
  };
}

function notesOnInstances(
  instances: readonly Instance[],
  audit: readonly AuditEntry[],
  now: number,
): readonly string[] {
  const names = shortNames(instances);
  return instances
    .filter((instance) => !isUsable(instance))
    .sort((a, b) => (a.id < b.id ? -1 : 1))
    .map((instance) => {
      const name = names.get(instance.id) ?? instance.instance;
      if (!instance.enabled) return `${name} ${disabledBy(instance.id, audit, now)}`;
      return instance.draining ? `${name} is leaving` : `${name} fails its check`;
    });
}

/** Ports say nothing while a service has one instance a host. */
function shortNames(instances: readonly Instance[]): ReadonlyMap<string, string> {
  const onHost = Map.groupBy(instances, ({ host }) => host);
  return new Map(
    instances.map(({ id, host, instance }) => [id, (onHost.get(host)?.length ?? 0) > 1 ? instance : host]),
  );
}

const intentSchema = z.object({ enabled: z.boolean() });

function disabledBy(id: string, audit: readonly AuditEntry[], now: number): string {
  const isOff = (value: unknown): boolean => intentSchema.safeParse(value).data?.enabled === false;
  // newest first: the first entry that turned it is the one that counts; when that turned it on, a hand in ZooKeeper did this
  const entry = audit.find(({ target, before, after }) => target === id && isOff(after) !== isOff(before));
  if (entry === undefined || !isOff(entry.after)) return "disabled";
  const who = entry.who === "anonymous" ? "" : ` by ${entry.who}`;
  const why = entry.reason === undefined || entry.reason === "" ? "" : ` (${entry.reason})`;
  return `disabled${who}, ${formatAge(now - Date.parse(entry.at))}${why}`;
}

function noteOnHost({ connected, appliedRevision, lag, rejected }: Agent): string | undefined {
  const [first] = rejected;
  const where = [
    ...(connected ? [] : ["not connected"]),
    ...(appliedRevision === null ? ["has applied nothing yet"] : []),
    ...(lag === null || lag === 0 ? [] : [`${lag} behind`]),
  ].join(", ");
  if (first === undefined) return where === "" ? undefined : where;
  const others = rejected.length === 1 ? "" : `, and ${plural(rejected.length - 1, "service")} more`;
  return `${where === "" ? "" : `${where}: `}${refusal(first)}${others}`;
}

/** One line: a definition that HAProxy refused, or an instance that is left out, which says so itself. */
function refusal({ service, instance, error }: Rejection): string {
  return instance === undefined ? `HAProxy refused ${service} (${error.trim()})` : `${service}: ${error.trim()}`;
}

/** As people see it: figures, services, then hosts that need attention. */
export function formatReport(found: Report): string {
  const { realm, revision, replicas, hosts, services, troubled, degraded, appliedP99Ms } = found;
  const head = [
    `realm ${realm}`,
    `revision ${revision}`,
    plural(replicas, "Atlas", "Atlases"),
    hosts.total === 0 ? "no hosts" : `${hosts.applied}/${plural(hosts.total, "host")} applied`,
    ...(appliedP99Ms === undefined ? [] : [`p99 ${appliedP99Ms} ms`]),
  ];
  const rows = services.map(({ service, usable, total, owner, notes }) => [
    service,
    { text: `${usable}/${total}`, style: colourOf(usable, total) },
    owner,
    listed(notes),
  ]);
  return [
    head.join(" · "),
    ...degraded.map((reason) => paint("red", `DEGRADED ${reason}`)),
    rows.length === 0 ? "no services" : formatTable(["SERVICE", "UP", "OWNER", "NOTE"], rows),
    ...troubled.map(({ host, note }) => `${paint("yellow", `HOST ${host}`)}  ${note}`),
  ].join("\n");
}

function colourOf(usable: number, total: number): "green" | "yellow" | "red" {
  if (usable === total && total > 0) return "green";
  return usable === 0 ? "red" : "yellow";
}

/** Three notes fit a line; that there are more must be seen too. */
function listed(notes: readonly string[]): string {
  const rest = notes.length - 3;
  return [...notes.slice(0, 3), ...(rest > 0 ? [`${rest} more`] : [])].join("; ");
}
