// One port, one service, in the whole realm: reserved for instances, or a TCP service's on every loopback. Two replicas can
// give one port away at once, each unseen by the other; so it is looked at again once it was written, and taken back.
import { ProblemFault } from "../core/lib/http.ts";
import type { Definition } from "../core/model/service.ts";
import type { LiveStore } from "../core/registry/live-store.ts";
import type { MetaStore } from "../core/registry/meta-store.ts";
import type { Registry } from "./registry.ts";

type Halves = { readonly registry: Registry; readonly live: LiveStore; readonly meta: MetaStore };

/** The service other than `service` whose definition has the port as localPort, by what the store says at this moment. */
export async function localPortOwner(
  { registry, live }: Halves,
  service: string,
  port: number,
): Promise<string | undefined> {
  // the registry's own state may still wait for a definition that another replica has just committed
  for (const name of live.state().definitions.keys()) {
    if (name !== service && (await registry.definition(name))?.definition.localPort === port) return name;
  }
  return undefined;
}

/** @throws ProblemFault `conflict` when the definition's localPort belongs to another service */
export async function requireFreeLocalPort(halves: Halves, service: string, { localPort }: Definition): Promise<void> {
  if (localPort === undefined) return;
  const reserved = (await halves.meta.ports()).find((other) => other.port === localPort && other.service !== service);
  const owner = reserved?.service ?? (await localPortOwner(halves, service, localPort));
  if (owner !== undefined)
    throw new ProblemFault("conflict", `localPort ${localPort} belongs to ${owner}; choose another`);
}
