// The versions of definitions that count, read from metadata. What cannot be read is waited for; what is lost for good, because
// somebody set its number by hand or harmed the table, has a stand-in, and everybody is told.
import { fullJitter } from "../core/lib/backoff.ts";
import type { Clock } from "../core/lib/clock.ts";
import { describeError, errorCode } from "../core/lib/errors.ts";
import type { Logger } from "../core/lib/logger.ts";
import { defaultDefinition } from "../core/model/service.ts";
import type { DefinitionVersion, MetaStore } from "../core/registry/meta-store.ts";

/** Metadata is read one by one when Atlas starts: so many at the same time. */
const READS_AT_ONCE = 16;

/** What a version is that no reading will ever find: somebody set its number by hand, or harmed the table. */
export const LOST = new Set(["meta_missing", "meta_unreadable"]);

/** A version that counts and is lost, and what the service was before; undefined: nobody knows. */
type Lost = {
  readonly service: string;
  readonly version: number;
  readonly error: unknown;
  readonly last: DefinitionVersion | undefined;
};

/** What counts in place of a lost version: the one before, as with all other garbage; the default when there was none. */
type StandIn = { readonly version: number; readonly definition: DefinitionVersion; readonly why: string };

/** How definitions are read. */
type Reading = {
  readonly signal: AbortSignal;
  /** These are all there are. */
  readonly whole: boolean;
};

export class Definitions {
  readonly #meta: MetaStore;
  readonly #clock: Clock;
  readonly #logger: Logger;
  /** `SERVICE/VERSION` → its definition, for versions that count or are about to. */
  readonly #versions = new Map<string, DefinitionVersion>();
  /** By service. Only until its number moves on. */
  readonly #standIns = new Map<string, StandIn>();
  #trouble: string | undefined;

  constructor(meta: MetaStore, clock: Clock, logger: Logger) {
    this.#meta = meta;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** Why reading does not get on now, in words. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  /** A sentence for every definition that has a stand-in. */
  lost(): readonly string[] {
    return [...this.#standIns.values()].map(({ why }) => why);
  }

  known(service: string, version: number): DefinitionVersion | undefined {
    const standIn = this.#standIns.get(service);
    return (
      this.#versions.get(`${service}/${version}`) ?? (standIn?.version === version ? standIn.definition : undefined)
    );
  }

  add(service: string, version: number, definition: DefinitionVersion): void {
    this.#versions.set(`${service}/${version}`, definition);
  }

  drop(service: string, version: number): void {
    this.#versions.delete(`${service}/${version}`);
  }

  clear(): void {
    this.#versions.clear();
    this.#standIns.clear();
  }

  /** Forgets what no longer counts, as far as `counting` says. @param before services of the state before */
  forget(counting: ReadonlyMap<string, number>, before: ReadonlyMap<string, unknown>): void {
    for (const [service, { version }] of this.#standIns) {
      if (counting.get(service) !== version) this.#standIns.delete(service);
    }
    for (const key of this.#versions.keys()) {
      const [service = "", version] = key.split("/");
      const counts = counting.get(service);
      // newer ones may be about to count
      const old = counts === undefined ? before.has(service) : Number(version) < counts;
      if (old) this.#versions.delete(key);
    }
  }

  /** Reads all that count, once. @throws Fault of the store: at start there is nothing to serve meanwhile */
  readAll(wanted: ReadonlyMap<string, number>): Promise<void> {
    return this.#read(wanted, true, (_, error) => Promise.reject(error));
  }

  /**
   * Reads definitions until it has them all. Metadata that cannot be read is waited for, never replaced by defaults.
   * @throws the reason of `signal`
   */
  readUntilThere(wanted: ReadonlyMap<string, number>, { signal, whole }: Reading): Promise<void> {
    return this.#read(wanted, whole, async (attempt, error, service, version) => {
      this.#trouble = `the definition of ${service} cannot be read: ${describeError(error)}`;
      this.#logger.error({ err: error, service, version }, "definition cannot be read; trying again");
      await this.#clock.sleep(fullJitter(attempt, { baseMs: 100, capMs: 5_000 }), signal);
    });
  }

  /** @param onFailure resolves when it is to be tried again */
  async #read(wanted: ReadonlyMap<string, number>, whole: boolean, onFailure: OnFailure): Promise<void> {
    for (let attempt = 0; ; attempt += 1) {
      const lost: Lost[] = [];
      await sideBySide(wanted, async ([service, version]) => {
        const one = await this.#readOne(service, version, onFailure);
        if (one !== undefined) lost.push(one);
      });
      const [first] = lost;
      // one number may be somebody's mistake; with nothing behind any of them it is the metadata that is lost
      const isMistake = !whole || lost.length < wanted.size || lost.some(({ last }) => last !== undefined);
      if (first === undefined || isMistake) {
        for (const one of lost) this.#standIn(one);
        break;
      }
      await onFailure(attempt, first.error, first.service, first.version);
    }
    this.#trouble = undefined;
  }

  /** Resolves with what is lost, if it is. */
  async #readOne(service: string, version: number, onFailure: OnFailure): Promise<Lost | undefined> {
    for (let attempt = 0; ; attempt += 1) {
      try {
        this.add(service, version, await this.#meta.definition(service, version));
        return undefined;
      } catch (error) {
        try {
          if (!LOST.has(errorCode(error) ?? "")) throw error;
          return { service, version, error, last: await this.#lastOf(service) };
        } catch (trouble) {
          await onFailure(attempt, trouble, service, version);
        }
      }
    }
  }

  /** What a service was before; as far as a start knows, the newest that is stored. */
  async #lastOf(service: string): Promise<DefinitionVersion | undefined> {
    const before = [...this.#versions].findLast(([key]) => key.startsWith(`${service}/`))?.[1];
    return before ?? this.#standIns.get(service)?.definition ?? (await this.#meta.newestDefinition(service));
  }

  #standIn({ service, version, error, last }: Lost): void {
    const why = `${describeError(error)}; ${last === undefined ? "the default counts" : "the one before counts"} until ${service} is defined anew`;
    this.#logger.error({ err: error, service, version }, why);
    const definition = last ?? { definition: defaultDefinition, published: undefined };
    this.#standIns.set(service, { version, definition, why });
  }
}

type OnFailure = (attempt: number, error: unknown, service: string, version: number) => Promise<void>;

/** Reads them all, so many at the same time as metadata likes. */
export async function sideBySide<T>(items: Iterable<T>, read: (item: T) => Promise<void>): Promise<void> {
  const left = [...items].values();
  const reading = Array.from({ length: READS_AT_ONCE }, async () => {
    for (const item of left) await read(item);
  });
  await Promise.all(reading);
}
