import { isIP } from "node:net";
import { z } from "zod";

/** A service's name; it becomes a host name label, a znode, a file name and an HAProxy backend, hence so narrow. */
export const SERVICE_NAME = /^[a-z][a-z0-9-]{0,62}$/;
const DNS_NAME =
  /^(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*$/;

export const serviceName = z
  .string()
  .regex(SERVICE_NAME, "a service name is 1 to 63 of a–z, 0–9 and '-', and begins with a letter")
  // the one name of that form that every plain object already has: a lookup by service would find it
  .refine((name) => name !== "constructor", "a service cannot be named constructor");

/** Digits and dots that are no IP address are a mistyped one; a single label of digits is a container's name. */
const MISTYPED_IP = /^\d+(\.\d+)+$/;

/** A DNS name or an IP address. IPv6 without a scope (`%eth0`), which means something on one machine only. */
export const hostName = z
  .string()
  .refine(
    (text) => (isIP(text) !== 0 && !text.includes("%")) || (DNS_NAME.test(text) && !MISTYPED_IP.test(text)),
    "a host is a DNS name or an IP address",
  );

/** Free text in a narrow alphabet, for zones and versions: it stands unquoted in HAProxy's files and in tables. */
export const label = z
  .string()
  .max(100)
  .regex(/^[A-Za-z0-9._+:/-]*$/, "letters, digits and . _ + : / - only");

/** True when two names mean the same host: DNS knows no case. */
export function sameHost(a: string, b: string): boolean {
  return a.toLowerCase() === b.toLowerCase();
}

/** True for names and addresses that mean this machine only. An IPv6 address without brackets. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}

export const port = z.int().min(1).max(65_535);

/**
 * Splits an instance's name, `HOST` or `HOST:PORT` (an IPv6 host with a port is in brackets: `[::1]:5000`).
 * Returns undefined when it is neither.
 */
export function parseInstanceName(name: string): { host: string; port?: number } | undefined {
  if (hostName.safeParse(name).success) return { host: name };
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):([1-9][0-9]{0,4})$/.exec(name);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || !hostName.safeParse(host).success) return undefined;
  const number = Number(match?.[3]);
  return number <= 65_535 ? { host, port: number } : undefined;
}

/** The name of an instance as `serve` registers it. */
export function instanceName(host: string, portNumber: number): string {
  return isIP(host) === 6 ? `[${host}]:${portNumber}` : `${host}:${portNumber}`;
}

export const instanceNameSchema = z
  .string()
  .refine(
    (text) => parseInstanceName(text) !== undefined,
    "an instance is HOST or HOST:PORT, with HOST a DNS name or an IP address",
  );

/** The id of an instance in a whole registry: `identity/host001:5000`. */
export function instanceId(service: string, instance: string): string {
  return `${service}/${instance}`;
}

/** The two parts of an instance's id: a service has no slash in its name. */
export function parseInstanceId(id: string): { readonly service: string; readonly instance: string } {
  const slash = id.indexOf("/");
  return { service: id.slice(0, slash), instance: id.slice(slash + 1) };
}
