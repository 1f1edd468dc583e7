// What the unit tests of the sidecar share: instances and snapshots with everything in its default.
import type { Instance } from "../core/model/instance.ts";
import { parseInstanceName } from "../core/model/names.ts";
import { defaultDefinition } from "../core/model/service.ts";
import { emptySnapshot, type Snapshot } from "../core/model/snapshot.ts";

/** `identity/host001:5000`, enabled and healthy. */
export function instanceOf(id: string, more: Partial<Instance> = {}): Instance {
  const [service = "", instance = ""] = id.split("/");
  const { host, port = 5_000 } = parseInstanceName(instance) ?? { host: instance };
  return {
    id,
    service,
    instance,
    host,
    address: host,
    port,
    enabled: true,
    healthy: true,
    draining: false,
    weight: 100,
    zone: "",
    version: "",
    agent: host,
    ...more,
  };
}

/** A snapshot with these instances; each of their services has the default definition. */
export function snapshotOf(revision: number, instances: readonly Instance[], more: Partial<Snapshot> = {}): Snapshot {
  const services = Object.fromEntries(instances.map(({ service }) => [service, defaultDefinition]));
  return { ...emptySnapshot("local"), generation: 1, revision, services, instances, ...more };
}
