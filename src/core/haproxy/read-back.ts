// What HAProxy says of itself, as plain values: the other half of every change.
import { isIP } from "node:net";
import { instanceOfServer, type Layout, serverName } from "./layout.ts";
import type { RunningServer, RunningServers } from "./changes.ts";
import type { ServerStatus } from "./proxy.ts";

// bits of `show servers state`, management guide 9.3
const MAINTENANCE = 0x01 | 0x02 | 0x04 | 0x20;
const DRAIN = 0x08 | 0x10;
const CHECK_ENABLED = 0x04;

/** The answer to `show servers state`, by backend and server name. @param unpinnable the list of `show acl` */
export function parseServersState(text: string, unpinnable: ReadonlySet<string>): ReadonlyMap<string, RunningServers> {
  const backends = new Map<string, Map<string, RunningServer>>();
  for (const line of text.split("\n")) {
    if (line.startsWith("#")) continue;
    const field = line.split(" ");
    const [, backend, id, name, address, state, admin, weight] = field;
    const [checkState, port] = [field[13], field[18]];
    if (backend === undefined || name === undefined || address === undefined || port === undefined) continue;
    const servers = backends.get(backend) ?? new Map<string, RunningServer>();
    backends.set(backend, servers);
    servers.set(name, {
      name,
      id: Number(id),
      address: canonicalAddress(address),
      port: Number(port),
      weight: Number(weight),
      drain: (Number(admin) & DRAIN) !== 0,
      maintenance: (Number(admin) & MAINTENANCE) !== 0,
      checked: (Number(checkState) & CHECK_ENABLED) !== 0,
      up: state !== "0",
      pinnable: !unpinnable.has(`${backend}/${name}`),
    });
  }
  return backends;
}

/** The answer to `show acl`: one entry per line, an address before it. */
export function parseAcl(text: string): ReadonlySet<string> {
  return new Set(
    text
      .split("\n")
      .map((line) => line.trim().split(" ")[1])
      .filter((entry) => entry !== undefined),
  );
}

/** The answer to `show backend`. */
export function parseBackends(text: string): readonly string[] {
  return text.split("\n").filter((line) => line.endsWith("-backend"));
}

/** The servers of services in the answer to `show stat`. */
export function parseStatus(text: string): readonly ServerStatus[] {
  const [head = "", ...rows] = text.split("\n");
  const columns = new Map(
    head
      .replace(/^# /, "")
      .split(",")
      .map((name, index) => [name, index]),
  );
  return rows.flatMap((row): ServerStatus[] => {
    const cells = row.split(",");
    const cell = (name: string): string => cells[columns.get(name) ?? -1] ?? "";
    const backend = cell("pxname");
    if (cell("type") !== "2" || !backend.endsWith("-backend")) return [];
    const { address, port } = parseSocketAddress(cell("addr"));
    return [
      {
        service: backend.slice(0, -"-backend".length),
        instance: instanceOfServer(cell("svname")),
        address,
        port,
        status: cell("status"),
        check: describeCheck(cell("check_status"), cell("check_code"), cell("check_duration"), cell("last_chk")),
        weight: Number(cell("weight")),
      },
    ];
  });
}

const CHECKS: Readonly<Record<string, string>> = {
  INI: "not checked yet",
  SOCKERR: "no socket for the check",
  L4OK: "connected",
  L4TOUT: "connecting timed out",
  L4CON: "connection refused",
  L6TOUT: "no answer in time",
  L7TOUT: "no answer in time",
  L7RSP: "an invalid answer",
};

/** `check 200, 3 ms`; empty when HAProxy does not check the server. */
function describeCheck(status: string, code: string, duration: string, info: string): string {
  // an asterisk marks a check that runs right now, beside the result of the last
  const word = status.replace(/^\* /, "");
  if (word === "") return "";
  const took = duration === "" ? "" : `, ${duration} ms`;
  if (word === "L7OK" || word === "L7STS") return `check ${code}${took}`;
  if (word === "HANA") return "connections to it failed";
  if (word === "L4CON" && info !== "" && !/refused/i.test(info)) return `check: ${info.toLowerCase()}${took}`;
  return `check: ${CHECKS[word] ?? word}${took}`;
}

function parseSocketAddress(text: string): { address: string; port: number } {
  const colon = text.lastIndexOf(":");
  return { address: text.slice(0, colon).replace(/^\[|\]$/g, ""), port: Number(text.slice(colon + 1)) };
}

/** One spelling of an IP address, so that two of the same compare equal. */
export function canonicalAddress(address: string): string {
  return isIP(address) === 6 ? new URL(`http://[${address}]`).hostname.slice(1, -1) : address;
}

/** HAProxy's weights are the registry's, reduced (shares.ts); whoever reads them expects the registry's. */
export function withRegisteredWeights(status: readonly ServerStatus[], layout: Layout): readonly ServerStatus[] {
  return status.map((server) => {
    const name = serverName(server.instance);
    const wanted = layout.backends.get(server.service)?.servers.find((one) => one.name === name);
    return wanted?.share === server.weight ? { ...server, weight: wanted.weight } : server;
  });
}
