// This host's own address, for instances that do not say where they listen.
import { createSocket } from "node:dgram";
import { isIP } from "node:net";
import { networkInterfaces } from "node:os";
import { isLoopback } from "../core/model/names.ts";

/**
 * The address that others reach this host at: 127.0.0.1 when every Atlas is on loopback (everything is on one machine), else
 * the source address of packets to Atlas, else the first IPv4 address that is not loopback. Sends nothing.
 */
export async function ownAddress(atlas: readonly string[]): Promise<string> {
  const targets = atlas.map((text) => new URL(text));
  if (targets.every(({ hostname }) => isLoopback(unbracketed(hostname)))) return "127.0.0.1";
  for (const { hostname, port, protocol } of targets) {
    if (isLoopback(unbracketed(hostname))) continue;
    const address = await sourceAddress(unbracketed(hostname), Number(port) || (protocol === "https:" ? 443 : 80));
    if (address !== undefined) return address;
  }
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return addresses.find(({ internal, family }) => !internal && family === "IPv4")?.address ?? "127.0.0.1";
}

function unbracketed(hostname: string): string {
  return hostname.replaceAll(/[[\]]/g, "");
}

/** Connecting a datagram socket only chooses a route. Undefined when there is none, or the name is unknown. */
function sourceAddress(host: string, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = createSocket(isIP(host) === 6 ? "udp6" : "udp4");
    const finish = (address: string | undefined): void => {
      socket.close();
      resolve(address);
    };
    socket.once("error", () => finish(undefined));
    // with a callback the error would go there, untyped
    socket.once("connect", () => finish(socket.address().address));
    socket.connect(port, host);
  });
}
