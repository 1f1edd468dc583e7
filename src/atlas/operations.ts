// Writes of services and instances: what they check, what they do to the two stores, what they leave in the audit trail.
import { isDeepStrictEqual } from "node:util";
import { errorCode } from "../core/lib/errors.ts";
import { ProblemFault } from "../core/lib/http.ts";
import { parseInstanceName } from "../core/model/names.ts";
import { type PatchInstance, type PutInstance, registrationFromPut } from "../core/model/instance.ts";
import { type Definition, defaultDefinition, mergePublished } from "../core/model/service.ts";
import type { RemovalReason } from "../core/model/snapshot.ts";
import type { InstanceDecision, InstanceRecord, LiveStore, Written } from "../core/registry/live-store.ts";
import type { DefinitionVersion, MetaStore } from "../core/registry/meta-store.ts";
import { requireOwnInstance } from "./access.ts";
import type { Actor, AuditTrail } from "./audit-trail.ts";
import { requireFreeLocalPort } from "./local-ports.ts";
import type { MetadataQueue } from "./metadata-queue.ts";
import type { Registry } from "./registry.ts";

/** The answer to a write; `created`: there was none before. */
export type Outcome = Written & { readonly created: boolean };

/** What every kind of write works on. */
export type OperationsOptions = {
  readonly registry: Registry;
  readonly live: LiveStore;
  readonly meta: MetaStore;
  readonly audit: AuditTrail;
  readonly metadata: MetadataQueue;
};

/** The answer to a write that does not move the revision. */
export function unmoved(live: LiveStore, changed: boolean): Written {
  const { generation, revision } = live.state();
  return { generation, revision, changed };
}

export class Operations {
  readonly #registry: Registry;
  readonly #live: LiveStore;
  readonly #halves: Pick<OperationsOptions, "registry" | "live" | "meta">;
  readonly #audit: AuditTrail;
  readonly #metadata: MetadataQueue;

  constructor({ registry, live, meta, audit, metadata }: OperationsOptions) {
    this.#registry = registry;
    this.#live = live;
    this.#halves = { registry, live, meta };
    this.#audit = audit;
    this.#metadata = metadata;
  }

  /** An operator's definition: replaces the one that is. @throws ProblemFault `conflict` when its localPort is taken */
  putService(service: string, definition: Definition, actor: Actor): Promise<Outcome> {
    return this.#define(service, actor, (current) => ({ definition, published: current?.published }));
  }

  /** A service publishes its own definition: operators' edits win over it. */
  publishService(service: string, next: Definition, actor: Actor): Promise<Outcome> {
    return this.#define(service, actor, (current) => ({
      definition: mergePublished(current?.definition, current?.published, next),
      published: next,
    }));
  }

  async deleteService(service: string, force: boolean, actor: Actor): Promise<Outcome> {
    const definition = this.#registry.state().services.get(service);
    const before = { definition, instances: this.#registry.instancesOf(service) };
    const written = await this.#live.deleteService(service, { force });
    await this.#audit.note(written, actor, { kind: "service.delete", target: service, before, after: null });
    return { ...written, created: false };
  }

  async putInstance(service: string, instance: string, put: PutInstance, actor: Actor): Promise<Outcome> {
    const isDefined = (): boolean => this.#live.state().definitions.has(service);
    for (;;) {
      if (!isDefined()) await this.#defineDefault(service, actor);
      try {
        return await this.#update(service, instance, "instance.put", actor, (current) => ({
          kind: "put",
          registration: registrationFromPut(service, instance, put),
          enabled: put.enabled ?? current?.enabled ?? true,
        }));
      } catch (error) {
        // somebody deleted the service between the two
        if (errorCode(error) !== "conflict" || isDefined()) throw error;
      }
    }
  }

  /** @throws ProblemFault `not_found` when there is nothing that could change */
  patchInstance(service: string, instance: string, patch: PatchInstance, actor: Actor): Promise<Outcome> {
    const { enabled, ...rest } = patch;
    return this.#update(service, instance, "instance.patch", actor, (current) => {
      if (current?.registration === undefined) {
        // an instance that is away has only its operator's intent
        if (current !== undefined && enabled !== undefined && Object.keys(rest).length === 0)
          return { kind: "intend", enabled };
        throw new ProblemFault("not_found", `${service} has no instance ${instance}`);
      }
      const given = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined));
      return {
        kind: "put",
        registration: { ...current.registration, ...given },
        enabled: enabled ?? current.enabled,
      };
    });
  }

  /**
   * Removes an instance. By an operator (`agent` undefined) his intent goes too; by an agent it stays.
   * @throws ProblemFault `conflict` when an agent means an instance that is not its own
   */
  deleteInstance(
    service: string,
    instance: string,
    agent: string | undefined,
    actor: Actor,
    reason: RemovalReason = "deregistered",
  ): Promise<Outcome> {
    return this.#update(service, instance, "instance.delete", actor, (current) => {
      const owner = current?.registration?.agent;
      if (agent !== undefined && owner !== undefined && owner !== agent) {
        throw new ProblemFault(
          "conflict",
          `${service}/${instance} is not the agent of ${agent}'s to remove, but ${owner === null ? "was put by hand" : `the agent of ${owner}'s`}`,
        );
      }
      return { kind: "remove", reason, forget: agent === undefined };
    });
  }

  /** Removes the instances of an agent whose grace is over; an operator's intent about them stays. */
  async expire(host: string): Promise<void> {
    const actor: Actor = { who: "atlas", from: "", reason: "the agent's lease ended" };
    await this.#removeInstancesOf(host, "instance.expire", actor, () =>
      // it came back while this was on its way
      this.#live.leases().has(host) ? { kind: "keep" } : { kind: "remove", reason: "expired", forget: false },
    );
  }

  /**
   * Removes the instances of a host that will not return, and every intent about them, also about those that are away: an
   * operator says so. @returns whether there was anything
   */
  async removeHost(host: string, actor: Actor): Promise<boolean> {
    const remove = (): InstanceDecision => ({ kind: "remove", reason: "deregistered", forget: true });
    const removed = await this.#removeInstancesOf(host, "agent.delete", actor, remove);
    const away = this.#live.away().filter(({ instance }) => parseInstanceName(instance)?.host === host);
    const forgotten = await Promise.all(
      away.map(({ service, instance }) =>
        this.#update(service, instance, "agent.delete", actor, (current) =>
          current?.registration === undefined ? remove() : { kind: "keep" },
        ),
      ),
    );
    return removed || forgotten.some(({ changed }) => changed);
  }

  async #update(
    service: string,
    instance: string,
    kind: string,
    actor: Actor,
    decide: (current: InstanceRecord | undefined) => InstanceDecision,
  ): Promise<Outcome> {
    let before: InstanceRecord | undefined;
    let decision: InstanceDecision | undefined;
    const written = await this.#live.updateInstance(service, instance, (current) => {
      requireOwnInstance(actor, instance, current);
      before = current;
      decision = decide(current);
      return decision;
    });
    await this.#audit.note(written, actor, {
      kind,
      target: `${service}/${instance}`,
      before: flat(before),
      after: flat(afterwards(before, decision)),
    });
    return { ...written, created: written.changed && before?.registration === undefined && decision?.kind === "put" };
  }

  async #removeInstancesOf(
    host: string,
    kind: string,
    actor: Actor,
    decision: () => InstanceDecision,
  ): Promise<boolean> {
    const own = [...this.#live.state().instances.values()].filter(({ agent }) => agent === host);
    const outcomes = await Promise.all(
      own.map(({ service, instance }) =>
        this.#update(service, instance, kind, actor, (current) =>
          current?.registration?.agent === host ? decision() : { kind: "keep" },
        ),
      ),
    );
    return outcomes.some(({ changed }) => changed);
  }

  #define(
    service: string,
    actor: Actor,
    decide: (current: { definition: Definition; published: Definition | undefined } | undefined) => {
      definition: Definition;
      published: Definition | undefined;
    },
  ): Promise<Outcome> {
    return this.#metadata(async () => {
      const current = await this.#registry.definition(service);
      const next = decide(current);
      await requireFreeLocalPort(this.#halves, service, next.definition);
      if (
        current !== undefined &&
        isDeepStrictEqual(current.definition, next.definition) &&
        isDeepStrictEqual(current.published, next.published)
      ) {
        return { ...unmoved(this.#live, false), created: false };
      }
      const written = await this.#registry.define(service, next, current?.version);
      await this.#keepLocalPort(service, next.definition, current);
      await this.#audit.note(written, actor, {
        kind: "service.put",
        target: service,
        before: current?.definition ?? null,
        after: next.definition,
      });
      return { ...written, created: current === undefined };
    });
  }

  async #defineDefault(service: string, actor: Actor): Promise<void> {
    await this.#define(service, actor, (current) => current ?? { definition: defaultDefinition, published: undefined });
  }

  /** Another replica may have given the port away since it was found free: then this definition goes back to what it was. */
  async #keepLocalPort(
    service: string,
    definition: Definition,
    before: (DefinitionVersion & { readonly version: number }) | undefined,
  ): Promise<void> {
    if (definition.localPort === undefined || definition.localPort === before?.definition.localPort) return;
    try {
      await requireFreeLocalPort(this.#halves, service, definition);
    } catch (error) {
      // when nobody can be asked the write stands, as it would without this second look
      if (!(error instanceof ProblemFault)) return;
      const version = this.#live.state().definitions.get(service);
      if (before === undefined) await this.#live.deleteService(service, { force: false });
      else await this.#live.setDefinition(service, before.version, version);
      throw error;
    }
  }
}

function afterwards(
  before: InstanceRecord | undefined,
  decision: InstanceDecision | undefined,
): InstanceRecord | undefined {
  switch (decision?.kind) {
    case "put":
      return { registration: decision.registration, enabled: decision.enabled };
    case "intend":
      return { registration: before?.registration, enabled: decision.enabled };
    case "remove":
      return before === undefined || before.enabled || decision.forget
        ? undefined
        : { registration: undefined, enabled: false };
    case "keep":
    case undefined:
      return before;
  }
}

/** A record as one object, as readers of the audit trail know instances. */
function flat(record: InstanceRecord | undefined): unknown {
  return record === undefined ? null : { ...record.registration, enabled: record.enabled };
}
