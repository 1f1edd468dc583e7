// Every write of Atlas: what it checks, what it does to the two stores, and what it leaves in the audit trail.
import { isDeepStrictEqual } from "node:util";
import type { Clock } from "../core/lib/clock.ts";
import { errorCode, Fault } from "../core/lib/errors.ts";
import { ProblemFault } from "../core/lib/http.ts";
import type { Logger } from "../core/lib/logger.ts";
import { type Serial, serial } from "../core/lib/serial.ts";
import { type PatchInstance, type PutInstance, registrationFromPut } from "../core/model/instance.ts";
import { type Definition, defaultDefinition, mergePublished } from "../core/model/service.ts";
import type { Settings, SettingsValues } from "../core/model/settings.ts";
import type { InstanceDecision, InstanceRecord, LiveStore, Written } from "../core/registry/live-store.ts";
import type { MetaStore } from "../core/registry/meta-store.ts";
import type { Registry } from "./registry.ts";

/** Who writes, as the audit trail will say. */
export type Actor = { readonly who: string; readonly from: string; readonly reason?: string | undefined };

/** The answer to a write; `created`: there was none before. */
export type Outcome = Written & { readonly created: boolean };

export type OperationsOptions = {
  readonly registry: Registry;
  readonly live: LiveStore;
  readonly meta: MetaStore;
  readonly clock: Clock;
  readonly logger: Logger;
};

/** How often a metadata write that lost a race to another replica is repeated. */
const ATTEMPTS = 5;

export class Operations {
  readonly #registry: Registry;
  readonly #live: LiveStore;
  readonly #meta: MetaStore;
  readonly #clock: Clock;
  readonly #logger: Logger;
  // read, then write a version, then make it count: one at a time here, so that only other replicas can get in between
  readonly #metadata: Serial = serial();

  constructor({ registry, live, meta, clock, logger }: OperationsOptions) {
    this.#registry = registry;
    this.#live = live;
    this.#meta = meta;
    this.#clock = clock;
    this.#logger = logger;
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
    await this.#audit(written, actor, { kind: "service.delete", target: service, before, after: null });
    return { ...written, created: false };
  }

  async putInstance(service: string, instance: string, put: PutInstance, actor: Actor): Promise<Outcome> {
    if (!this.#live.state().definitions.has(service)) await this.#defineDefault(service, actor);
    return this.#update(service, instance, "instance.put", actor, (current) => ({
      kind: "put",
      registration: registrationFromPut(service, instance, put),
      enabled: put.enabled ?? current?.enabled ?? true,
    }));
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
  deleteInstance(service: string, instance: string, agent: string | undefined, actor: Actor): Promise<Outcome> {
    return this.#update(service, instance, "instance.delete", actor, (current) => {
      const owner = current?.registration?.agent;
      if (agent !== undefined && owner !== undefined && owner !== agent) {
        throw new ProblemFault(
          "conflict",
          `${service}/${instance} is not the agent of ${agent}'s to remove, but ${owner === null ? "was put by hand" : `the agent of ${owner}'s`}`,
        );
      }
      return { kind: "remove", reason: "deregistered", forget: agent === undefined };
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

  /** Removes the instances of a host that will not return, and every intent about them: an operator says so. */
  async removeHost(host: string, actor: Actor): Promise<void> {
    await this.#removeInstancesOf(host, "agent.delete", actor, () => ({
      kind: "remove",
      reason: "deregistered",
      forget: true,
    }));
  }

  /**
   * @param expected the version the writer saw, from If-Match; undefined: any
   * @throws ProblemFault `stale` when it is another one
   */
  putSettings(
    service: string,
    values: SettingsValues,
    expected: number | undefined,
    actor: Actor,
  ): Promise<Outcome & { readonly version: number }> {
    return this.#setSettings(service, values, expected, "settings.put", actor);
  }

  /** Back to nothing set; the history stays. */
  deleteSettings(
    service: string,
    expected: number | undefined,
    actor: Actor,
  ): Promise<Outcome & { readonly version: number }> {
    return this.#setSettings(service, {}, expected, "settings.delete", actor);
  }

  /** @throws Fault `conflict` when no port is free */
  async reservePort(service: string, actor: Actor): Promise<Outcome & { readonly port: number }> {
    const taken = new Set([...this.#registry.state().services.values()].flatMap(({ localPort }) => localPort ?? []));
    const { port, created } = await this.#meta.reservePort(service, taken);
    const written = this.#unmoved(created);
    await this.#audit(written, actor, { kind: "port.reserve", target: service, before: null, after: { port } });
    return { ...written, created, port };
  }

  async releasePort(service: string, actor: Actor): Promise<Outcome> {
    const before = (await this.#meta.ports()).find((reservation) => reservation.service === service);
    const written = this.#unmoved(await this.#meta.releasePort(service));
    await this.#audit(written, actor, { kind: "port.release", target: service, before: before ?? null, after: null });
    return { ...written, created: false };
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
      before = current;
      decision = decide(current);
      return decision;
    });
    await this.#audit(written, actor, {
      kind,
      target: `${service}/${instance}`,
      before: flat(before),
      after: flat(afterwards(before, decision)),
    });
    return { ...written, created: written.changed && before?.registration === undefined && decision?.kind === "put" };
  }

  async #removeInstancesOf(host: string, kind: string, actor: Actor, decision: () => InstanceDecision): Promise<void> {
    const own = [...this.#live.state().instances.values()].filter(({ agent }) => agent === host);
    await Promise.all(
      own.map(({ service, instance }) =>
        this.#update(service, instance, kind, actor, (current) =>
          current?.registration?.agent === host ? decision() : { kind: "keep" },
        ),
      ),
    );
  }

  #define(
    service: string,
    actor: Actor,
    decide: (current: { definition: Definition; published: Definition | undefined } | undefined) => {
      definition: Definition;
      published: Definition | undefined;
    },
  ): Promise<Outcome> {
    return this.#metadata.run(() =>
      this.#retried(async () => {
        const current = await this.#registry.definition(service);
        const next = decide(current);
        await this.#checkLocalPort(service, next.definition);
        if (
          current !== undefined &&
          isDeepStrictEqual(current.definition, next.definition) &&
          isDeepStrictEqual(current.published, next.published)
        ) {
          return { ...this.#unmoved(false), created: false };
        }
        const written = await this.#registry.define(service, next, current?.version);
        await this.#audit(written, actor, {
          kind: "service.put",
          target: service,
          before: current?.definition ?? null,
          after: next.definition,
        });
        return { ...written, created: current === undefined };
      }),
    );
  }

  async #defineDefault(service: string, actor: Actor): Promise<void> {
    await this.#define(service, actor, (current) => current ?? { definition: defaultDefinition, published: undefined });
  }

  /** One port, one service, in the whole realm: reserved for instances or bound on every loopback. */
  async #checkLocalPort(service: string, { localPort }: Definition): Promise<void> {
    if (localPort === undefined) return;
    const reserved = (await this.#meta.ports()).find((other) => other.port === localPort && other.service !== service);
    const bound = [...this.#registry.state().services].find(
      ([name, definition]) => name !== service && definition.localPort === localPort,
    );
    const owner = reserved?.service ?? bound?.[0];
    if (owner !== undefined)
      throw new ProblemFault("conflict", `localPort ${localPort} belongs to ${owner}; choose another`);
  }

  #setSettings(
    service: string,
    values: SettingsValues,
    expected: number | undefined,
    kind: string,
    actor: Actor,
  ): Promise<Outcome & { readonly version: number }> {
    return this.#metadata.run(() =>
      this.#retried(async () => {
        const current: Settings = await this.#registry.settings(service);
        if (expected !== undefined && expected !== current.version) {
          throw new ProblemFault(
            "stale",
            `the settings of ${service} are at version ${current.version}, not ${expected}; read them again`,
            { headers: { etag: etagOf(current.version) } },
          );
        }
        if (isDeepStrictEqual(current.values, values))
          return { ...this.#unmoved(false), created: false, version: current.version };
        const at = new Date(this.#clock.now()).toISOString();
        const version = await this.#meta.addSettings(service, values, at, actor.who);
        const written = await this.#live.setSettings(service, version, current.version || undefined);
        await this.#audit(written, actor, { kind, target: service, before: current.values, after: values });
        return { ...written, created: current.version === 0, version };
      }),
    );
  }

  /** Repeats a metadata write that another replica overtook between its read and its write. */
  async #retried<T>(work: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await work();
      } catch (error) {
        // a ProblemFault is a considered no; a bare conflict is the store's lost race
        const lostRace = !(error instanceof ProblemFault) && error instanceof Fault && errorCode(error) === "conflict";
        if (!lostRace || attempt === ATTEMPTS) throw error;
      }
    }
  }

  /** The answer to a write that does not move the revision. */
  #unmoved(changed: boolean): Written {
    const { generation, revision } = this.#live.state();
    return { generation, revision, changed };
  }

  /** The write stands whether or not this succeeds, so it never fails the write. */
  async #audit(
    { changed }: Written,
    { who, from, reason }: Actor,
    entry: { readonly kind: string; readonly target: string; readonly before: unknown; readonly after: unknown },
  ): Promise<void> {
    if (!changed) return;
    const at = new Date(this.#clock.now()).toISOString();
    try {
      await this.#meta.addAudit({ at, who, from, reason, ...entry });
    } catch (error) {
      this.#logger.error({ err: error, audit: { at, who, from, reason, ...entry } }, "audit entry could not be stored");
    }
  }
}

/** The strong ETag of a settings version. */
export function etagOf(version: number): string {
  return `"${version}"`;
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
