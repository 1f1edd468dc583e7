// What HAProxy should look like, in its own words (backends, servers, drain, down), before it becomes text (render.ts) or
// commands (plan.ts). Pure: the same desired state makes the same layout.
import { isIP } from "node:net";
import type { Instance } from "../model/instance.ts";
import type { Definition } from "../model/service.ts";
import type { Desired } from "./proxy.ts";
import { sharesOf } from "./shares.ts";

/** One `server`: what the runtime API can change while HAProxy runs. */
export type Server = {
  readonly name: string;
  readonly instance: string;
  /** An IP address. */
  readonly address: string;
  readonly port: number;
  /** As registered. */
  readonly weight: number;
  /** As HAProxy has it: shares.ts. */
  readonly share: number;
  /** Gets no balanced request; one that is pinned to it by name still passes. */
  readonly drain: boolean;
  /** `down`: the agent's verdict, nothing goes there. `up`: his too, and HAProxy still looks for itself. `unknown`: HAProxy's checks decide. */
  readonly health: "up" | "down" | "unknown";
};

/** One `backend`: its definition and check intervals need a reload to change, its servers do not. */
export type Backend = {
  readonly service: string;
  readonly name: string;
  readonly definition: Definition;
  readonly checks: CheckIntervals;
  readonly servers: readonly Server[];
};

export type Layout = {
  /** By service name, in order. */
  readonly backends: ReadonlyMap<string, Backend>;
  /** Services of protocol tcp, which are not routed here. */
  readonly tcp: readonly string[];
  /** Instances whose address does not resolve: they are left out. */
  readonly unresolved: readonly Instance[];
};

export type CheckIntervals = { readonly steadyMs: number; readonly hastyMs: number };

/** No instance is checked more often than this by all hosts together, in steady state. */
const CHECKS_PER_SECOND = 10;
const LONGEST_INTERVAL_MS = 86_400_000;

/**
 * How often one HAProxy checks an instance, in ms. `steadyMs` is the definition's interval, doubled until all agents
 * together stay under ten checks a second; powers of two, because a changed interval costs a reload. `hastyMs` is for a
 * server whose state is not settled (new, failing, or down): eight times as often, never more often than the definition.
 */
export function checkIntervals(intervalMs: number, agents: number): CheckIntervals {
  let steadyMs = intervalMs;
  while (steadyMs * CHECKS_PER_SECOND < agents * 1_000) steadyMs *= 2;
  steadyMs = Math.min(steadyMs, LONGEST_INTERVAL_MS);
  return { steadyMs, hastyMs: Math.max(Math.min(intervalMs, steadyMs), Math.ceil(steadyMs / 8)) };
}

export function backendName(service: string): string {
  return `${service}-backend`;
}

/**
 * HAProxy's name of an instance. It allows letters, digits and `.:_-` only, so the brackets of `[::1]:5000` become `_`;
 * no host has a name like `_::1_`, so two instances never share one.
 */
export function serverName(instance: string): string {
  return instance.replaceAll(/[[\]]/g, "_");
}

/** The instance that HAProxy calls `server`. */
export function instanceOfServer(server: string): string {
  return server.replace(/^_([0-9a-fA-F.]*:[0-9a-fA-F:.]*)_(?=:\d+$)/, "[$1]");
}

/** The IP address of an instance, or undefined when its name does not resolve: it is left out then. */
export type AddressOf = (address: string) => string | undefined;

/**
 * The layout of a desired state. What did not change since `previous` is the same object, so that whoever comes after
 * can skip it: with 10,000 instances one change must cost little.
 */
export function layoutOf(desired: Desired, addressOf: AddressOf, previous?: Layout): Layout {
  const instances = Map.groupBy(desired.instances, (instance) => instance.service);
  const backends = new Map<string, Backend>();
  const tcp: string[] = [];
  const unresolved: Instance[] = [];
  for (const service of Object.keys(desired.services).sort()) {
    const definition = desired.services[service];
    if (definition === undefined) continue;
    if (definition.protocol === "tcp") {
      tcp.push(service);
      continue;
    }
    const own = instances.get(service) ?? [];
    const checks = checkIntervals(definition.healthcheck.intervalMs, desired.agents);
    const before = previous?.backends.get(service);
    if (before !== undefined && isFrom(before, definition, checks, own)) {
      backends.set(service, before);
      continue;
    }
    const fixed = unresolved.length;
    const servers = serversOf(own, definition, addressOf, unresolved);
    const same = before !== undefined && sameBackend(before, definition, checks, servers);
    const backend = same ? before : { service, name: backendName(service), definition, checks, servers };
    if (fixed === unresolved.length && own.every(({ address }) => isIP(address) !== 0)) sources.set(backend, own);
    backends.set(service, backend);
  }
  return { backends, tcp, unresolved };
}

/** What a backend was made of, unless names are in it: those may resolve to something else by now. */
const sources = new WeakMap<Backend, readonly Instance[]>();

function isFrom(
  backend: Backend,
  definition: Definition,
  checks: CheckIntervals,
  instances: readonly Instance[],
): boolean {
  const source = sources.get(backend);
  return (
    source?.length === instances.length &&
    sameFrame(backend, definition, checks) &&
    source.every((instance, index) => instance === instances[index])
  );
}

function sameFrame(backend: Backend, definition: Definition, checks: CheckIntervals): boolean {
  const { steadyMs, hastyMs } = backend.checks;
  return backend.definition === definition && steadyMs === checks.steadyMs && hastyMs === checks.hastyMs;
}

/** Those that cannot be reached at all are put into `unresolved`. */
function serversOf(
  instances: readonly Instance[],
  definition: Definition,
  addressOf: AddressOf,
  unresolved: Instance[],
): readonly Server[] {
  const shares = sharesOf(instances, definition.split);
  const servers: Server[] = [];
  for (const [index, instance] of instances.entries()) {
    const address = addressOf(instance.address);
    if (address === undefined) unresolved.push(instance);
    else servers.push(serverOf(instance, shares[index] ?? 0, address));
  }
  return servers.sort((a, b) => (a.name < b.name ? -1 : 1));
}

const serverCache = new WeakMap<Instance, Server>();

function serverOf(instance: Instance, share: number, address: string): Server {
  const cached = serverCache.get(instance);
  if (cached?.address === address && cached.share === share) return cached;
  const server: Server = {
    name: serverName(instance.instance),
    instance: instance.instance,
    address,
    port: instance.port,
    weight: instance.weight,
    share,
    drain: !instance.enabled || instance.draining,
    health: instance.healthy === null ? "unknown" : instance.healthy ? "up" : "down",
  };
  serverCache.set(instance, server);
  return server;
}

function sameBackend(
  before: Backend,
  definition: Definition,
  checks: CheckIntervals,
  servers: readonly Server[],
): boolean {
  return (
    sameFrame(before, definition, checks) &&
    before.servers.length === servers.length &&
    before.servers.every((server, index) => server === servers[index])
  );
}
