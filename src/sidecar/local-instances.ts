// The instances of this host: registered over the socket, checked here, kept in Atlas, and gone when they say so or fall silent.
import type { AtlasClient } from "../core/api/atlas-client.ts";
import type { Clock } from "../core/lib/clock.ts";
import { describeError } from "../core/lib/errors.ts";
import { ProblemFault } from "../core/lib/http.ts";
import type { Logger } from "../core/lib/logger.ts";
import type { LocalWritten, PutLocal } from "../core/model/local.ts";
import { instanceId } from "../core/model/names.ts";
import { comparePositions } from "../core/model/position.ts";
import type { Definition } from "../core/model/service.ts";
import type { Snapshot } from "../core/model/snapshot.ts";
import { observe } from "./health.ts";
import type { HostState } from "./host-state.ts";
import {
  acceptStep,
  adoptLocal,
  type Host,
  isForeign,
  isForgettable,
  type LocalInstance,
  nextStep,
  putLocal,
} from "./local-instance.ts";
import type { SidecarMetrics } from "./metrics.ts";
import type { Probe } from "./probe.ts";
import { createRegistrar, type Task } from "./registrar.ts";
import { rounds } from "./rounds.ts";

/** How long a write over the socket waits for Atlas before it answers that Atlas does not have it yet, in ms. */
const ANSWER_MS = 2_000;
/** How long a deregistration waits for the drain it begins with, in ms. */
const DRAIN_MS = 10_000;
/** The ttl of an instance that nobody told us about, in ms. */
const ADOPTED_TTL_MS = 30_000;

export type LocalInstancesOptions = {
  readonly state: HostState;
  readonly host: Host;
  readonly client: AtlasClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: SidecarMetrics;
  readonly probe: Probe;
  readonly random: () => number;
  /** Whether Atlas can be told anything now. */
  readonly connected: () => boolean;
  /** What is routed, or what has to be kept, may have changed. */
  readonly changed: () => void;
};

export class LocalInstances {
  readonly #options: LocalInstancesOptions;
  readonly #state: HostState;
  readonly #registrar: ReturnType<typeof createRegistrar>;
  readonly #checks: ReturnType<typeof rounds>;
  /** What the last check said, in words, by id. */
  readonly #said = new Map<string, string>();

  constructor(options: LocalInstancesOptions) {
    const { state, clock, logger, random } = options;
    this.#options = options;
    this.#state = state;
    this.#registrar = createRegistrar({
      ...options,
      host: options.host.host,
      task: (id) => this.#task(id),
      accepted: ({ local, step }, position) =>
        this.#update(local.id, (current) => acceptStep(current, local, step, position)),
      refused: ({ local }) =>
        this.#update(local.id, (current) =>
          current.definition === local.definition ? { ...current, definition: undefined } : current,
        ),
    });
    this.#checks = rounds({ clock, logger, firstMs: () => 0, visit: (id) => this.#check(id, random) });
  }

  /** Begins to check what is there already, after a start from disk. */
  start(): void {
    this.#keep();
    this.#reconcile();
  }

  async stop(): Promise<void> {
    this.#checks.stop();
    await this.#registrar.stop();
  }

  /** Registers an instance, or hears that it lives. Waits for its first check and, shortly, for Atlas. */
  async put(service: string, instance: string, put: PutLocal): Promise<LocalWritten> {
    const id = instanceId(service, instance);
    const previous = this.#state.locals.get(id);
    const next = putLocal(previous, service, instance, put, this.#options.host, this.#options.clock.now());
    this.#state.locals.set(id, next);
    if (next.unsent || next.definition !== undefined) this.#options.changed();
    this.#keep();
    if (next.health.healthy === null) {
      if (previous === undefined)
        this.#options.logger.info({ id }, `local instance on ${next.spec.address}:${put.port}`);
      // one write that says healthy is better than two
      await this.#checks.now(id);
    }
    return this.#answer(id);
  }

  /**
   * Takes an instance out: on this host at once, everywhere when Atlas has it.
   * @param waitMs waits so long until every agent has applied it
   * @throws ProblemFault `not_found`; with `waitMs` also `not_applied` and `rejected`; it is draining all the same
   */
  async drain(service: string, instance: string, waitMs: number | undefined): Promise<LocalWritten> {
    const { id } = this.#existing(service, instance);
    this.#update(id, (local) => ({ ...local, draining: true }));
    // in the line before anything else can tell Atlas, since Atlas waits only with the write that changes something
    const settled = waitMs === undefined ? undefined : this.#registrar.settleApplied(id, waitMs);
    this.#options.changed();
    if (settled === undefined) return this.#answer(id);
    return { ...(await settled), registered: true };
  }

  /** Ends the registration of an instance, draining first if that was not done. @throws ProblemFault `not_found` */
  async remove(service: string, instance: string): Promise<LocalWritten> {
    const { id, draining } = this.#existing(service, instance);
    if (!draining && this.#options.connected()) {
      try {
        await this.drain(service, instance, DRAIN_MS);
      } catch (error) {
        this.#options.logger.warn({ id }, `deregistered without a confirmed drain: ${describeError(error)}`);
      }
    }
    this.#leave(id, "deregistered");
    return this.#answer(id);
  }

  /** The registry said something new: adopts, forgets, and tells Atlas again what it lost. */
  take(snapshot: Snapshot, previous: Snapshot): void {
    const { host } = this.#state;
    if (comparePositions(snapshot, previous) < 0) {
      // the registry went back: what it once accepted means nothing any more
      for (const id of this.#state.locals.keys()) this.#update(id, (local) => ({ ...local, written: undefined }));
    }
    for (const instance of snapshot.instances) {
      if (instance.agent !== host || this.#state.locals.has(instance.id)) continue;
      this.#options.logger.info({ id: instance.id }, "Atlas has it as an instance of this host: taken over");
      this.#state.locals.set(instance.id, adoptLocal(instance, ADOPTED_TTL_MS, snapshot, this.#options.clock.now()));
    }
    for (const local of this.#state.locals.values()) {
      if (!isForgettable(local, snapshot, this.#state.seen(local.id), host)) continue;
      this.#state.locals.delete(local.id);
      this.#said.delete(local.id);
      this.#registrar.forget(local.id);
    }
    this.#keep();
    this.#reconcile();
  }

  /** Atlas is there again. */
  connected(): void {
    this.#registrar.retry();
    this.#reconcile();
  }

  /** What the last check said, in words. */
  said(id: string): string | undefined {
    return this.#said.get(id);
  }

  /** What keeps Atlas from having it as it is here. */
  problem(id: string): string | undefined {
    const seen = this.#state.seen(id);
    if (this.#state.locals.has(id) && isForeign(seen, this.#state.host)) {
      return `Atlas has it as an instance of ${seen?.agent}: two hosts with one instance name`;
    }
    return this.#registrar.problem(id);
  }

  #existing(service: string, instance: string): LocalInstance {
    const local = this.#state.locals.get(instanceId(service, instance));
    if (local === undefined || local.left !== undefined) {
      throw new ProblemFault("not_found", `${service}/${instance} is not an instance of this host`);
    }
    return local;
  }

  async #answer(id: string): Promise<LocalWritten> {
    // without Atlas there is nothing to wait for; its line goes on by itself
    if (!this.#options.connected()) this.#registrar.look(id);
    const registered = this.#options.connected() && (await this.#registrar.settled(id, ANSWER_MS));
    const { generation, revision } = this.#state.locals.get(id)?.written ?? this.#state.position;
    const problem = this.problem(id) ?? (registered ? undefined : "Atlas does not have it yet");
    return { generation, revision, registered, ...(problem === undefined ? {} : { problem }) };
  }

  #task(id: string): Task | undefined {
    const local = this.#state.locals.get(id);
    if (local === undefined) return undefined;
    const step = nextStep(local, this.#state.view.snapshot, this.#state.seen(id), this.#state.host);
    return step && { local, step };
  }

  #reconcile(): void {
    for (const id of this.#state.locals.keys()) if (this.#task(id) !== undefined) this.#registrar.look(id);
  }

  #update(id: string, change: (local: LocalInstance) => LocalInstance): void {
    const local = this.#state.locals.get(id);
    if (local !== undefined) this.#state.locals.set(id, change(local));
  }

  #leave(id: string, left: "deregistered" | "expired"): void {
    this.#update(id, (local) => ({ ...local, left }));
    this.#keep();
    this.#options.changed();
    this.#registrar.look(id);
  }

  #keep(): void {
    const present = [...this.#state.locals.values()].filter(({ left }) => left === undefined);
    this.#checks.keep(present.map(({ id }) => id));
    this.#options.metrics.locals.set(present.length);
  }

  /** The id of an instance that listens where this one did, and still speaks. */
  #successorOf({ id, spec }: LocalInstance): string | undefined {
    const now = this.#options.clock.now();
    for (const other of this.#state.locals.values()) {
      const same = other.spec.address === spec.address && other.spec.port === spec.port;
      if (same && other.id !== id && other.left === undefined && now < other.expiresAt) return other.id;
    }
    return undefined;
  }

  /** How an instance is checked: as it just published, until Atlas has had its say. */
  #definitionOf({ definition, service }: LocalInstance): Definition {
    return definition ?? this.#state.definition(service);
  }

  async #check(id: string, random: () => number): Promise<number | undefined> {
    const { probe, clock, logger, metrics, changed } = this.#options;
    const local = this.#state.locals.get(id);
    if (local === undefined || local.left !== undefined) return undefined;
    const { healthcheck, protocol } = this.#definitionOf(local);
    const { address, port } = local.spec;
    const result = await probe({ address, port, definition: { healthcheck, protocol } });
    metrics.checks.inc({ result: result.passed ? "passed" : "failed" });
    const current = this.#state.locals.get(id);
    if (current === undefined || current.left !== undefined) return undefined;
    // it was started anew while we asked: that answer was another process's
    if (current.health !== local.health) return 0;
    this.#said.set(id, result.detail);
    const health = observe(current.health, result.passed, healthcheck, clock.now());
    this.#update(id, (latest) => ({ ...latest, health }));
    if (health.healthy !== current.health.healthy) {
      logger.info({ id }, `${health.healthy === true ? "healthy" : "unhealthy"}: ${result.detail}`);
      changed();
      this.#registrar.look(id);
    }
    if (clock.now() >= current.expiresAt) {
      // whoever took over its port answers the checks in its place
      const successor = this.#successorOf(current);
      if (health.healthy === false || successor !== undefined) {
        logger.warn(
          { id },
          `removed: it ${successor === undefined ? "neither speaks nor answers" : `fell silent, and ${successor} has its port`}`,
        );
        this.#leave(id, "expired");
        return undefined;
      }
    }
    return healthcheck.intervalMs * (0.9 + 0.2 * random());
  }
}
