// Which port a service gets: the same choice in every store.
import { Fault } from "../lib/errors.ts";

/** Ports that services get, both ends included: above the well-known, below Linux's ephemeral range (32768). */
const PORTS = { first: 5_000, last: 29_999 };

/** @throws Fault `conflict` when every port is used or taken */
export function lowestFreePort(used: ReadonlySet<number>, taken: ReadonlySet<number>): number {
  let port = PORTS.first;
  while (used.has(port) || taken.has(port)) port += 1;
  if (port <= PORTS.last) return port;
  throw new Fault({
    code: "conflict",
    message: `no port from ${PORTS.first} to ${PORTS.last} is free`,
    hint: "Release ports of services that are gone: DELETE /v1/ports/SERVICE.",
  });
}
