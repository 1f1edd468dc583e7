// Reserving ports: one port, one service, in the whole realm.
import { Fault } from "../core/lib/errors.ts";
import type { Actor } from "./audit-trail.ts";
import { localPortOwner } from "./local-ports.ts";
import { type OperationsOptions, type Outcome, unmoved } from "./operations.ts";

export class PortOperations {
  readonly #on: OperationsOptions;

  constructor(on: OperationsOptions) {
    this.#on = on;
  }

  /** The service's port, the one it has or the lowest free one. @throws Fault `conflict` when none is free */
  reserve(service: string, actor: Actor): Promise<Outcome & { readonly port: number }> {
    const { registry, live, meta, audit, metadata } = this.#on;
    // in the queue of definitions, so that no localPort is taken meanwhile
    return metadata(async () => {
      const taken = [...registry.state().services.values()].flatMap(({ localPort }) => localPort ?? []);
      const { port, created } = await meta.reservePort(service, new Set(taken));
      if (created && (await localPortOwner(this.#on, service, port)) !== undefined) {
        await meta.releasePort(service);
        // a lost race: the queue tries again
        throw new Fault({ code: "conflict", message: `port ${port} became another service's localPort meanwhile` });
      }
      const written = unmoved(live, created);
      await audit.note(written, actor, { kind: "port.reserve", target: service, before: null, after: { port } });
      return { ...written, created, port };
    });
  }

  release(service: string, actor: Actor): Promise<Outcome> {
    const { live, meta, audit, metadata } = this.#on;
    return metadata(async () => {
      const before = (await meta.ports()).find((reservation) => reservation.service === service);
      const written = unmoved(live, await meta.releasePort(service));
      await audit.note(written, actor, { kind: "port.release", target: service, before, after: null });
      return { ...written, created: false };
    });
  }
}
