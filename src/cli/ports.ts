import { z } from "zod";
import { portSchema } from "../core/model/answers.ts";
import { type Command, defineCommand } from "./command.ts";
import { connectAtlas } from "./connection.ts";
import { EXIT } from "./exit-codes.ts";
import { checkNames, readOptions } from "./operator.ts";
import { answer } from "./output.ts";
import { formatTable } from "./table.ts";

export const ports: Command = defineCommand({
  name: "ports",
  summary: "the ports that services have reserved",
  options: readOptions,
  async run({ values, sources }) {
    const all = await connectAtlas({ values, sources }).request("/v1/ports", { schema: z.array(portSchema) });
    answer(values.json, all, () => formatPorts(all));
    return EXIT.done;
  },
});

export const reservePort: Command = defineCommand({
  name: "ports reserve",
  summary: "reserve a port for a service; it keeps the one it has",
  arguments: [{ name: "SERVICE", describe: "the service" }],
  options: readOptions,
  async run({ values, sources, args: [service = ""] }) {
    checkNames(reservePort, service);
    const request = { method: "POST", body: { service }, schema: portSchema } as const;
    const reservation = await connectAtlas({ values, sources }).request("/v1/ports", request);
    answer(values.json, reservation, () => `${service} has port ${reservation.port}`);
    return EXIT.done;
  },
});

export const releasePort: Command = defineCommand({
  name: "ports release",
  summary: "give a service's port back",
  arguments: [{ name: "SERVICE", describe: "the service" }],
  options: readOptions,
  async run({ values, sources, args: [service = ""] }) {
    checkNames(releasePort, service);
    const request = { method: "DELETE", schema: z.object({ changed: z.boolean() }) } as const;
    const released = await connectAtlas({ values, sources }).request(`/v1/ports/${service}`, request);
    answer(values.json, { service, ...released }, () =>
      released.changed ? `${service}'s port is free again` : `${service} had no port`,
    );
    return EXIT.done;
  },
});

function formatPorts(all: readonly z.output<typeof portSchema>[]): string {
  if (all.length === 0) return "no port is reserved";
  const sorted = all.toSorted((a, b) => a.port - b.port);
  return formatTable(
    ["PORT", "SERVICE"],
    sorted.map(({ service, port }) => [String(port), service]),
  );
}
