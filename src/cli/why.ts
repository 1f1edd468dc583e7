import { formatAddress } from "../core/lib/address.ts";
import { createSidecarClient } from "../core/api/sidecar-client.ts";
import type { Why } from "../core/model/local.ts";
import { type Command, defineCommand } from "./command.ts";
import { EXIT } from "./exit-codes.ts";
import { checkNames } from "./operator.ts";
import { hostPort, option, shared } from "./options.ts";
import { answer } from "./output.ts";
import { type Cell, formatAge, formatTable } from "./table.ts";

export const why: Command = defineCommand({
  name: "why",
  summary: "why this host's requests for a service go where they go",
  arguments: [{ name: "SERVICE", describe: "the service" }],
  examples: ["smartstack why identity", "smartstack why identity --admin host003:4001"],
  options: {
    admin: option(hostPort, "admin address of a sidecar; on loopback unless it was told otherwise", {
      host: "127.0.0.1",
      port: 4001,
    }),
    json: shared.json,
  },
  async run({ values, args: [service = ""] }) {
    checkNames(why, service);
    const found = await createSidecarClient({ url: `http://${formatAddress(values.admin)}` }).why(service);
    answer(values.json, found, () => formatWhy(found, Date.now()));
    return found.known ? EXIT.done : EXIT.failed;
  },
});

/** @param now in ms since the epoch */
export function formatWhy(found: Why, now: number): string {
  const { host, service, known, usable, total, servers, notes } = found;
  const head = known ? `${usable} of ${total} usable` : "no such service on this host";
  return [
    `${host} → ${service}: ${head}`,
    ...(servers.length === 0 ? [] : [formatServers(servers)]),
    ...notes,
    [
      `revision ${found.revision}`,
      found.atlas.connected ? "Atlas connected" : "Atlas not connected",
      formatReload(found, now),
    ].join(" · "),
  ].join("\n");
}

function formatServers(servers: Why["servers"]): string {
  return formatTable(
    ["SERVER", "HAPROXY", "BECAUSE"],
    servers.map(({ instance, haproxy, usable, because }): Cell[] => [
      instance,
      { text: haproxy, style: usable ? "green" : "yellow" },
      because,
    ]),
  );
}

function formatReload({ lastReload }: Why, now: number): string {
  if (lastReload === null) return "no reload yet";
  const reasons = lastReload.reasons.length === 0 ? "" : `: ${lastReload.reasons.join(", ")}`;
  return `last reload ${formatAge(now - Date.parse(lastReload.at))} ago${reasons}`;
}
