// Reserving ports: one port, one service, in the whole realm.
import type { LiveStore } from "../core/registry/live-store.ts";
import type { MetaStore } from "../core/registry/meta-store.ts";
import type { Actor, AuditTrail } from "./audit-trail.ts";
import type { MetadataQueue } from "./metadata-queue.ts";
import { type OperationsOptions, type Outcome, unmoved } from "./operations.ts";
import type { Registry } from "./registry.ts";

export class PortOperations {
  readonly #registry: Registry;
  readonly #live: LiveStore;
  readonly #meta: MetaStore;
  readonly #audit: AuditTrail;
  readonly #metadata: MetadataQueue;

  constructor({ registry, live, meta, audit, metadata }: OperationsOptions) {
    this.#registry = registry;
    this.#live = live;
    this.#meta = meta;
    this.#audit = audit;
    this.#metadata = metadata;
  }

  /** The service's port, the one it has or the lowest free one. @throws Fault `conflict` when none is free */
  reserve(service: string, actor: Actor): Promise<Outcome & { readonly port: number }> {
    // in the queue of definitions, so that no localPort is taken meanwhile
    return this.#metadata(async () => {
      const taken = [...this.#registry.state().services.values()].flatMap(({ localPort }) => localPort ?? []);
      const { port, created } = await this.#meta.reservePort(service, new Set(taken));
      const written = unmoved(this.#live, created);
      await this.#audit.note(written, actor, { kind: "port.reserve", target: service, before: null, after: { port } });
      return { ...written, created, port };
    });
  }

  release(service: string, actor: Actor): Promise<Outcome> {
    return this.#metadata(async () => {
      const before = (await this.#meta.ports()).find((reservation) => reservation.service === service);
      const written = unmoved(this.#live, await this.#meta.releasePort(service));
      await this.#audit.note(written, actor, { kind: "port.release", target: service, before, after: null });
      return { ...written, created: false };
    });
  }
}
