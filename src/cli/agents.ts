import { z } from "zod";
import { type Agent, agentSchema } from "../core/model/agent.ts";
import { hostName } from "../core/model/names.ts";
import { type Command, defineCommand, usageError } from "./command.ts";
import { connectAtlas } from "./connection.ts";
import { EXIT } from "./exit-codes.ts";
import { explainUnapplied, formatApplied, readOptions, write, writeOptions } from "./operator.ts";
import { answer } from "./output.ts";
import { formatTable } from "./table.ts";

export const agents: Command = defineCommand({
  name: "agents",
  summary: "every host's sidecar: what it has applied, what it refused",
  options: readOptions,
  async run({ values, sources }) {
    const client = connectAtlas({ values, sources });
    const all = await client.request("/v1/agents", { schema: z.array(agentSchema) });
    answer(values.json, all, () => formatAgents(all));
    return EXIT.done;
  },
});

export const forgetAgent: Command = defineCommand({
  name: "agents forget",
  summary: "give up a host that will not return, and its instances",
  arguments: [{ name: "HOST", describe: "the host" }],
  options: writeOptions,
  async run({ values, sources, args: [host = ""] }) {
    if (!hostName.safeParse(host).success) throw usageError(forgetAgent, `"${host}" is no name of a host`);
    const client = connectAtlas({ values, sources });
    const path = `/v1/agents/${encodeURIComponent(host)}`;
    const written = await write(client, path, { method: "DELETE" }, values).catch((error: unknown) => {
      throw explainUnapplied(error, `${host} is forgotten`, values.timeout);
    });
    const what = written.changed === false ? "was not known" : "forgotten";
    answer(values.json, { host, ...written }, () => `${host} ${what}${formatApplied(written)}`);
    return EXIT.done;
  },
});

function formatAgents(all: readonly Agent[]): string {
  if (all.length === 0) return "no hosts";
  return formatTable(
    ["HOST", "ZONE", "VERSION", "APPLIED", "BEHIND", "NOTE"],
    all.map(({ host, zone, version, connected, appliedRevision, lag, rejected }) => [
      host,
      zone,
      version,
      appliedRevision === null ? "–" : String(appliedRevision),
      lag === null ? "–" : { text: String(lag), style: lag === 0 ? "green" : "yellow" },
      [
        ...(connected ? [] : ["not connected"]),
        ...rejected.map(({ service, instance, error }) =>
          // an instance that is left out says so itself
          instance === undefined ? `HAProxy refused ${service}: ${error.trim()}` : `${service}: ${error.trim()}`,
        ),
      ].join("; "),
    ]),
  );
}
