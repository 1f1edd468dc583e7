// How a running instance stays known: told to the host's sidecar, repeated before its time is over, tried again when the sidecar
// is away. An instance never fails because its sidecar does.
import { fullJitter } from "../core/lib/backoff.ts";
import type { Clock } from "../core/lib/clock.ts";
import { describeError, errorCode, Fault } from "../core/lib/errors.ts";
import type { Logger } from "../core/lib/logger.ts";
import type { SidecarClient } from "../core/api/sidecar-client.ts";
import type { SidecarInfo } from "../core/model/local.ts";
import { instanceName } from "../core/model/names.ts";
import type { Definition } from "../core/model/service.ts";

/** The sidecar forgets an instance that has not spoken for so long, in ms; a third of it is between two words. */
const TTL_MS = 30_000;
const RETRY = { baseMs: 500, capMs: 5_000 };
/** How long a service that leaves waits until every host has taken it out, in ms. */
const DRAIN_MS = 10_000;
const DRAIN_RETRY_MS = 250;

export type RegistrationOptions = {
  readonly service: string;
  readonly port: number;
  /** Of the instance; the agent's when undefined. */
  readonly host: string | undefined;
  readonly address: string | undefined;
  readonly version: string;
  readonly definition: Definition;
  /** The sidecar of another realm is refused. */
  readonly realm: string;
  readonly sidecar: SidecarClient;
  /** How the instance is found while there is no sidecar, as a sentence: told with the first trouble. */
  readonly alone?: string | undefined;
  /**
   * Called whenever the sidecar was reached and before its realm is looked at and it is told: the service may have to listen on
   * the agent's address. What it throws is a reason not to register.
   */
  readonly onInfo?: (info: SidecarInfo) => void;
  readonly clock: Clock;
  readonly logger: Logger;
};

/** `instance` is the name it was last registered under: it may still be known there while the sidecar is away. */
type State =
  | { readonly kind: "absent"; readonly failures: number; readonly instance: string | undefined }
  | { readonly kind: "registered"; readonly instance: string };

export class Registration {
  readonly #options: RegistrationOptions;
  readonly #ending = new AbortController();
  #state: State = { kind: "absent", failures: 0, instance: undefined };
  #loop: Promise<void> = Promise.resolve();
  /** What was complained about last: the same trouble is told once. */
  #told: string | undefined;

  constructor(options: RegistrationOptions) {
    this.#options = options;
  }

  /** Registers now if the sidecar is there, and keeps at it until `leave`. Resolves after the first attempt. */
  async start(): Promise<void> {
    await this.#attempt();
    this.#loop = this.#repeat();
  }

  /** The instance's name once it was registered. */
  get instance(): string | undefined {
    return this.#state.instance;
  }

  /**
   * Takes no more repetitions, says that this instance drains, and waits until every host has applied that, at most 10 s.
   * When that cannot be confirmed the 10 s are waited out: the hosts' own checks see `/readyz` fail in that time.
   */
  async drain(): Promise<void> {
    this.#ending.abort();
    await this.#loop;
    const { instance } = this.#state;
    if (instance === undefined) return;
    const { service, sidecar, clock, logger } = this.#options;
    const start = clock.now();
    const leftMs = (): number => start + DRAIN_MS - clock.now();
    let trouble: unknown;
    while (leftMs() > 0) {
      try {
        const { applied, total } = await sidecar.drain(service, instance, leftMs());
        logger.info(`draining, applied by ${applied ?? 0} of ${total ?? 0} hosts after ${clock.now() - start} ms`);
        return;
      } catch (error) {
        trouble = error;
        // a sidecar that is being restarted is there again in a moment
        await clock.sleep(Math.min(DRAIN_RETRY_MS, Math.max(0, leftMs())));
      }
    }
    logger.warn(`draining, not confirmed by every host: ${describeError(trouble)}`);
  }

  /** Ends the registration; without `drain` before it the sidecar drains first. */
  async leave(): Promise<void> {
    this.#ending.abort();
    await this.#loop;
    const { instance } = this.#state;
    if (instance === undefined) return;
    const { service, sidecar, logger } = this.#options;
    this.#state = { kind: "absent", failures: 0, instance: undefined };
    try {
      await sidecar.deregister(service, instance);
      logger.info(`${instance} deregistered`);
    } catch (error) {
      logger.warn(`${instance} could not be deregistered: ${describeError(error)}; it will expire`);
    }
  }

  async #repeat(): Promise<void> {
    const { signal } = this.#ending;
    const { clock } = this.#options;
    while (!signal.aborted) {
      const waitMs = this.#state.kind === "absent" ? 100 + fullJitter(this.#state.failures, RETRY) : TTL_MS / 3;
      try {
        await clock.sleep(waitMs, signal);
      } catch (error) {
        if (signal.aborted) return;
        throw error;
      }
      await this.#attempt();
    }
  }

  async #attempt(): Promise<void> {
    try {
      await this.#register();
    } catch (error) {
      const failures = this.#state.kind === "absent" ? this.#state.failures + 1 : 1;
      this.#state = { kind: "absent", failures, instance: this.#state.instance };
      const { alone } = this.#options;
      const ends = errorCode(error) === "started_too_early";
      const first = this.#state.instance === undefined && !ends ? [alone] : [];
      const hint = error instanceof Fault ? [error.hint] : [];
      const sentences = [describeError(error), ...hint, ...first].filter((part) => part !== undefined);
      this.#tell(sentences.map((sentence) => sentence.replace(/\.$/, "")).join(". "));
    }
  }

  async #register(): Promise<void> {
    const { service, port, host, address, version, definition, realm, sidecar, onInfo, logger } = this.#options;
    const first = this.#state.kind === "absent";
    let { instance } = this.#state;
    if (first || instance === undefined) {
      const info = await sidecar.info();
      onInfo?.(info);
      if (info.realm !== realm) throw foreignRealm(info.realm, realm);
      instance = instanceName(host ?? info.host, port);
    }
    const written = await sidecar.put(service, instance, {
      port,
      ...(address === undefined ? {} : { address }),
      ...(version === "" ? {} : { version }),
      // with the first word only: later ones would undo nothing, but cost Atlas a comparison each
      ...(first ? { definition } : {}),
      ttlMs: TTL_MS,
    });
    this.#state = { kind: "registered", instance };
    if (!written.registered)
      this.#tell(`${instance} is known to this host, but not yet to Atlas: ${written.problem ?? "Atlas is away"}`);
    else if (first || this.#told !== undefined) {
      this.#told = undefined;
      logger.info(`registered as ${service}/${instance}`);
    }
  }

  #tell(trouble: string): void {
    if (this.#told === trouble) return;
    this.#told = trouble;
    this.#options.logger.warn(trouble);
  }
}

function foreignRealm(theirs: string, ours: string): Fault {
  return new Fault({
    code: "config",
    message: `this host's sidecar belongs to the realm ${theirs}, this service runs in ${ours}: it is not registered`,
    hint: `Leave out --realm, or say --realm ${theirs}.`,
  });
}
