// What a watcher of a few services is sent of the whole.
import type { Delta, Snapshot } from "../core/model/snapshot.ts";

/** The services a stream is limited to; undefined: all. */
type Wanted = ReadonlySet<string> | undefined;

export function filterSnapshot(snapshot: Snapshot, wanted: Wanted): Snapshot {
  if (wanted === undefined) return snapshot;
  return {
    ...snapshot,
    services: pick(snapshot.services, wanted),
    instances: snapshot.instances.filter(({ service }) => wanted.has(service)),
    removed: snapshot.removed.filter(({ id }) => wanted.has(serviceOf(id))),
  };
}

/** Keeps the revisions: a watcher must be able to tell that nothing is missing. */
export function filterDelta(delta: Delta, wanted: Wanted): Delta {
  if (wanted === undefined) return delta;
  return {
    ...delta,
    services: {
      put: pick(delta.services.put, wanted),
      delete: delta.services.delete.filter((service) => wanted.has(service)),
    },
    instances: {
      put: delta.instances.put.filter(({ service }) => wanted.has(service)),
      delete: delta.instances.delete.filter(({ id }) => wanted.has(serviceOf(id))),
    },
  };
}

/** True when a delta says nothing but that the revision moved. */
export function isEmptyDelta({ services, instances }: Delta): boolean {
  return (
    instances.put.length + instances.delete.length + services.delete.length === 0 &&
    Object.keys(services.put).length === 0
  );
}

function pick<T>(record: Readonly<Record<string, T>>, wanted: ReadonlySet<string>): Record<string, T> {
  return Object.fromEntries(Object.entries(record).filter(([service]) => wanted.has(service)));
}

function serviceOf(id: string): string {
  return id.slice(0, id.indexOf("/"));
}
