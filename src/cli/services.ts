import { formatAddress } from "../core/lib/address.ts";
import { z } from "zod";
import { type Instance, isUsable } from "../core/model/instance.ts";
import { type ServiceSummary, serviceSummarySchema } from "../core/model/service.ts";
import { fieldsOf } from "./assignments.ts";
import { type Command, defineCommand } from "./command.ts";
import { connectAtlas } from "./connection.ts";
import { EXIT } from "./exit-codes.ts";
import { checkNames, readOptions, serviceDetailSchema, servicePath } from "./operator.ts";
import { answer } from "./output.ts";
import { formatTable } from "./table.ts";

export const services: Command = defineCommand({
  name: "services",
  summary: "every service, or one with its definition and instances",
  arguments: [{ name: "SERVICE", describe: "only this one, in full", optional: true }],
  examples: ["smartstack services", "smartstack services identity", "smartstack services identity --json"],
  options: readOptions,
  async run({ values, sources, args: [service] }) {
    checkNames(services, service);
    const client = connectAtlas({ values, sources });
    if (service === undefined) {
      const all = await client.request("/v1/services", { schema: z.array(serviceSummarySchema) });
      answer(values.json, all, () => formatServices(all));
      return EXIT.done;
    }
    const detail = await client.request(servicePath(service), { schema: serviceDetailSchema });
    answer(values.json, detail, () => formatService(service, detail));
    return EXIT.done;
  },
});

function formatServices(all: readonly ServiceSummary[]): string {
  if (all.length === 0) return "no services";
  return formatTable(
    ["SERVICE", "OWNER", "INSTANCES", "ENABLED", "HEALTHY"],
    all.map(({ service, owner, instances, enabled, healthy }) => [
      service,
      owner,
      String(instances),
      String(enabled),
      String(healthy),
    ]),
  );
}

function formatService(service: string, { definition, instances }: z.output<typeof serviceDetailSchema>): string {
  const fields = fieldsOf(definition);
  const own = instances.toSorted((a, b) => (a.instance < b.instance ? -1 : 1));
  return [
    formatTable([service, ""], fields),
    "",
    own.length === 0
      ? "no instances"
      : formatTable(
          ["INSTANCE", "ADDRESS", "STATE", "WEIGHT", "ZONE", "VERSION", "AGENT"],
          own.map((instance) => [
            instance.instance,
            formatAddress({ host: instance.address, port: instance.port }),
            { text: stateOf(instance), style: isUsable(instance) ? "green" : "yellow" },
            String(instance.weight),
            instance.zone,
            instance.version,
            instance.agent ?? "",
          ]),
        ),
  ].join("\n");
}

/** An instance's state in words, gravest first. */
function stateOf({ enabled, draining, healthy }: Pick<Instance, "enabled" | "draining" | "healthy">): string {
  if (!enabled) return "disabled";
  if (draining) return "leaving";
  if (healthy === null) return "unchecked";
  return healthy ? "healthy" : "failing";
}
