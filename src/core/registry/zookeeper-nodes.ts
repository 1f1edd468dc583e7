// The znodes of a realm: their paths, and what their data says. People and other programs read and write them by hand
// (docs/storage.md), so every text is taken with the patience that a person deserves, and what makes no sense is named.
import { z } from "zod";
import { parseJson } from "../lib/json.ts";
import { plainly } from "../lib/plainly.ts";
import { hostName, instanceNameSchema, label, port as portSchema, serviceName } from "../model/names.ts";
import { type Instance, instanceSchema, type Registration, registrationFromPut } from "../model/instance.ts";
import { type RemovalReason, removalReasonSchema } from "../model/snapshot.ts";
import type { HeldLease } from "./live-store.ts";
import type { Shape } from "./zookeeper-tree.ts";

/** The directories, which exist from the first opening on. */
export const DIRECTORIES = ["/hosts", "/removed", "/definitions", "/settings", "/agents", "/atlases"] as const;
export const GENERATION = "/generation";

export const hostsPath = (service: string, instance?: string): string =>
  instance === undefined ? `/hosts/${service}` : `/hosts/${service}/${instance}`;
export const enabledPath = (service: string, instance: string): string => `${hostsPath(service, instance)}/enabled`;
export const metaPath = (service: string, instance: string): string => `${hostsPath(service, instance)}/meta`;
export const removedPath = (service: string, instance?: string): string =>
  instance === undefined ? `/removed/${service}` : `/removed/${service}/${instance}`;
export const definitionPath = (service: string): string => `/definitions/${service}`;
export const settingsPath = (service: string): string => `/settings/${service}`;
export const agentPath = (host: string): string => `/agents/${host}`;
export const atlasPath = (replica: string): string => `/atlases/${replica}`;

const leaf: Shape = { data: true, counts: true };
const aside: Shape = { data: true, counts: false };
const named =
  (wrong: (name: string) => string | undefined, shape: Shape): NonNullable<Shape["child"]> =>
  (name) =>
    wrong(name) ?? shape;
const directory = (child: NonNullable<Shape["child"]>, counts = true): Shape => ({ data: false, child, counts });
const instanceShape: Shape = {
  data: true,
  counts: true,
  child: (name) => (name === "enabled" || name === "meta" ? leaf : "is none of enabled and meta"),
};

/** What Atlas mirrors of the registry. Settings and the generation do not count for the revision. */
export const REGISTRY_ROOTS: Readonly<Record<string, Shape>> = {
  hosts: directory(named(wrongService, directory(named(wrongInstance, instanceShape)))),
  removed: directory(named(wrongService, directory(named(wrongInstance, leaf)))),
  definitions: directory(named(wrongService, leaf)),
  settings: directory(named(wrongService, aside), false),
  generation: aside,
};

/** What Atlas mirrors of who is there: apart, so that 3,000 agents that connect together hold up no change of the registry. */
export const PRESENCE_ROOTS: Readonly<Record<string, Shape>> = {
  agents: directory(named(wrongHost, aside), false),
  atlases: directory(() => aside, false),
};

/** What a znode says, or why it says nothing. */
export type Reading<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly problem: string };

const good = <T>(value: T): Reading<T> => ({ ok: true, value });
const bad = <T>(problem: string): Reading<T> => ({ ok: false, problem });

/** As much of a znode's text as a message can bear. */
const shown = (text: string): string => JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text);

/** Undefined: the data is empty, and the node is only kept for the operator's intent. */
export function readPort(text: string): Reading<number | undefined> {
  const trimmed = text.trim();
  if (trimmed === "") return good(undefined);
  const port = /^\d{1,5}$/.test(trimmed) ? portSchema.safeParse(Number(trimmed)) : undefined;
  return port?.success === true ? good(port.data) : bad(`is ${shown(text)}, not a port from 1 to 65535`);
}

export function readEnabled(text: string): Reading<boolean> {
  const word = text.trim().toLowerCase();
  if (/^(false|0|no|off)$/.test(word)) return good(false);
  if (/^(true|1|yes|on|)$/.test(word)) return good(true);
  return bad(`is ${shown(text)}, neither True nor False`);
}

/** What `/meta` adds to the port. */
export type Meta = Partial<Pick<Instance, (typeof META_KEYS)[number]>>;

const META_KEYS = ["address", "weight", "zone", "version", "agent", "healthy", "draining"] as const;
const { address, weight, healthy, draining } = instanceSchema.shape;
// by hand nobody checked what HAProxy's files bear
const handmade = { zone: label, version: label, agent: hostName.nullable() };
const metaSchema = z.object({ address, weight, healthy, draining, ...handmade }).partial();

export function readMeta(text: string): Reading<Meta> {
  if (text.trim() === "") return good({});
  const json = parseJson(text);
  if (json === undefined) return bad(`is ${shown(text)}, not JSON`);
  return readWith(metaSchema as z.ZodType<Meta>, json);
}

export function writeMeta(registration: Registration): string {
  return JSON.stringify(Object.fromEntries(META_KEYS.map((key) => [key, registration[key]])));
}

/** What `meta` leaves out takes the default of a registration. */
export function registrationOf(service: string, instance: string, port: number, meta: Meta): Registration {
  const defaults = registrationFromPut(service, instance, { port });
  return {
    ...defaults,
    address: meta.address ?? defaults.address,
    weight: meta.weight ?? defaults.weight,
    zone: meta.zone ?? defaults.zone,
    version: meta.version ?? defaults.version,
    agent: meta.agent ?? null,
    healthy: meta.healthy ?? null,
    draining: meta.draining ?? false,
  };
}

/** The number of a version, a generation. */
export function readNumber(text: string): Reading<number> {
  const trimmed = text.trim();
  return /^[1-9]\d{0,14}$/.test(trimmed) ? good(Number(trimmed)) : bad(`is ${shown(text)}, not a number`);
}

export function readReason(text: string): Reading<RemovalReason> {
  const reason = removalReasonSchema.safeParse(text.trim());
  return reason.success ? good(reason.data) : bad(`is ${shown(text)}, neither deregistered nor expired`);
}

const leaseSchema = z.object({ boot: z.string(), zone: z.string(), version: z.string(), replica: z.string() });

export function readLease(host: string, text: string): Reading<HeldLease> {
  const json = parseJson(text);
  if (json === undefined) return bad(`is ${shown(text)}, not JSON`);
  const lease = readWith(leaseSchema, json);
  return lease.ok ? good({ host, ...lease.value }) : lease;
}

/** Where a replica is reached. */
export function readReplicaUrl(text: string): Reading<string> {
  return URL.canParse(text) ? good(text) : bad(`is ${shown(text)}, not a URL`);
}

export function writeLease({ boot, zone, version, replica }: HeldLease): string {
  return JSON.stringify({ boot, zone, version, replica });
}

function wrongService(name: string): string | undefined {
  return serviceName.safeParse(name).success ? undefined : "is not the name of a service";
}

function wrongInstance(name: string): string | undefined {
  return instanceNameSchema.safeParse(name).success ? undefined : "is not the name of an instance (HOST or HOST:PORT)";
}

function wrongHost(name: string): string | undefined {
  return hostName.safeParse(name).success ? undefined : "is not the name of a host";
}

function readWith<T>(schema: z.ZodType<T>, json: unknown): Reading<T> {
  const result = schema.safeParse(json, { error: plainly });
  if (result.success) return good(result.data);
  const [issue] = result.error.issues;
  const path = issue?.path.join(".") ?? "";
  return bad(path === "" ? `is wrong: it ${issue?.message}` : `is wrong: ${path} ${issue?.message}`);
}
