// A realm as a file, and a file as a realm: the backup, and the way from one store to another. What is exported is one state of
// the registry; what is imported is checked as a whole before any of it is written, and written in an order that can break off
// anywhere: versions first, which count for nothing yet, then the live state in one stroke, then what does not route.
import type { Clock } from "../core/lib/clock.ts";
import { errorCode } from "../core/lib/errors.ts";
import { ProblemFault } from "../core/lib/http.ts";
import { VERSION } from "../core/lib/version.ts";
import {
  type Backup,
  BACKUP_FORMAT,
  type BackupAudit,
  type BackupDefinition,
  type BackupSettings,
  type WrittenLine,
} from "../core/model/backup.ts";
import { instanceId, parseInstanceId } from "../core/model/names.ts";
import type { Position } from "../core/model/position.ts";
import { formatPosition } from "../core/model/position.ts";
import type { AuditEntry } from "../core/registry/meta-store.ts";
import type { Actor } from "./audit-trail.ts";
import type { OperationsOptions, Outcome } from "./operations.ts";
import {
  type Content,
  contentOf,
  counts,
  type Difference,
  differences,
  isEmpty,
  sameDefinition,
} from "./backup-content.ts";
import { LOST } from "./definitions.ts";

/** Of each service's settings so many versions are kept, of the audit trail so many entries: the newest. */
const KEPT = { settings: 1_000, audit: 10_000 };
/** So many versions and entries are read or written at the same time. */
const AT_ONCE = 64;

export type ImportOptions = {
  /** Replace a registry that is not empty. */
  readonly replace: boolean;
  /** Check everything and say what would change, write nothing. */
  readonly dryRun: boolean;
  /** Take another realm's backup. */
  readonly forceRealm: boolean;
};

export type Imported = Outcome & {
  readonly dryRun: boolean;
  /** Of the backup. */
  readonly at: string;
  readonly realm: string;
  readonly services: Difference;
  readonly instances: Difference;
  readonly intents: Difference;
  readonly settings: Difference;
  readonly ports: Difference;
  /** Audit entries that were missing. */
  readonly audit: number;
};

export class Backups {
  readonly #on: OperationsOptions;
  readonly #clock: Clock;

  constructor(on: OperationsOptions, clock: Clock) {
    this.#on = on;
    this.#clock = clock;
  }

  /**
   * The lines of a backup of this moment. Definitions are read before the promise resolves, so that unreadable metadata is an
   * answer and not half a file; the rest as the lines are taken.
   * @throws Fault `unavailable`, `meta_missing` of the store
   */
  async export({ audit }: { readonly audit: boolean }): Promise<AsyncGenerator<WrittenLine>> {
    // one state for everything: it never changes, however long the reading takes
    const state = this.#on.live.state();
    const away = this.#on.live.away();
    const at = new Date(this.#clock.now()).toISOString();
    const definitions = await this.#definitionsOf(state.definitions);
    return this.#lines({ state, away, at, definitions, audit });
  }

  async *#lines({
    state,
    away,
    at,
    definitions,
    audit,
  }: {
    readonly state: ReturnType<OperationsOptions["live"]["state"]>;
    readonly away: ReturnType<OperationsOptions["live"]["away"]>;
    readonly at: string;
    readonly definitions: ReadonlyMap<string, BackupDefinition>;
    readonly audit: boolean;
  }): AsyncGenerator<WrittenLine> {
    const { registry, meta } = this.#on;
    const { generation, revision } = state;
    let lines = 1;
    yield { kind: "header", format: BACKUP_FORMAT, realm: registry.realm, generation, revision, at, version: VERSION };
    for (const [service, { definition, published }] of byName(definitions)) {
      lines += 1;
      yield { kind: "definition", service, definition, ...(published === undefined ? {} : { published }) };
    }
    for (const [service, version] of byName(state.settings)) {
      const history = await meta.settingsHistory(service, KEPT.settings);
      // newer ones were stored after this state, and older ones than the current may never have counted: history all the same
      for (const { values, at: when, who, version: number } of history.toReversed()) {
        if (number > version) continue;
        lines += 1;
        const current = number === version ? { current: true as const } : {};
        yield { kind: "settings", service, at: when, who, values, ...current };
      }
    }
    for (const { service, port } of await meta.ports()) {
      lines += 1;
      yield { kind: "port", service, port };
    }
    for (const [, { id: _, host: __, ...instance }] of byName(state.instances)) {
      lines += 1;
      yield { kind: "instance", ...instance };
    }
    for (const { service, instance } of away) {
      lines += 1;
      yield { kind: "intent", service, instance, enabled: false };
    }
    const entries = audit ? (await meta.audit(KEPT.audit)).toReversed() : [];
    for (const entry of entries) {
      lines += 1;
      yield { kind: "audit", entry: writtenEntry(entry) };
    }
    yield { kind: "end", lines: lines + 1 };
  }

  /**
   * Makes the registry what a backup says, in a new generation; a registry that is so already stays as it is. May be repeated.
   * @throws ProblemFault `conflict` when the backup is another realm's, or the registry is not empty and may not be replaced;
   * Fault `unavailable` of the store: then what was there still counts, unless the live store itself broke off
   */
  async import(backup: Backup, options: ImportOptions, actor: Actor): Promise<Imported> {
    const { registry, live } = this.#on;
    const { realm, at } = backup.header;
    if (realm !== registry.realm && !options.forceRealm) {
      throw new ProblemFault(
        "conflict",
        `this backup is of the realm ${realm}, and this Atlas has ${registry.realm}; forceRealm=true takes it all the same, its instances too`,
        { extra: { needs: "forceRealm" } },
      );
    }
    return this.#on.metadata(async () => {
      const versions = live.state().definitions;
      const before = await this.#content();
      const found = differences(before, contentOf(backup));
      const changed = Object.values(found).some(({ added, changed, removed }) => added + changed + removed > 0);
      const known = new Set((await this.#on.meta.audit(KEPT.audit)).map(deedOf));
      const missing = backup.audit.filter((entry) => !known.has(deedOf(entry)));
      const { generation, revision } = this.#on.live.state();
      const shared = { dryRun: options.dryRun, at, realm, ...found, audit: missing.length, created: false };
      if (options.dryRun) return { ...shared, changed, generation, revision };
      if (changed && !options.replace && !isEmpty(before)) throw notEmpty(before);
      await inBatches(missing, (entry) => this.#on.meta.addAudit(entry));
      if (!changed) return { ...shared, changed, generation, revision };
      const position = await this.#replace(backup, before, versions);
      await this.#on.audit.note({ changed: true }, actor, {
        kind: "registry.import",
        target: registry.realm,
        before: { position: formatPosition({ generation, revision }), ...counts(before) },
        after: { position: formatPosition(position), ...counts(contentOf(backup)), backup: at },
      });
      return { ...shared, ...position, changed };
    });
  }

  /** @param versions of the definitions in `before`: those that stay as they are stay the same version */
  async #replace(backup: Backup, before: Content, versions: ReadonlyMap<string, number>): Promise<Position> {
    const { live, meta } = this.#on;
    const definitions = new Map<string, number>();
    await inBatches([...backup.definitions], async ([service, next]) => {
      const version = sameDefinition(before.definitions.get(service), next) ? versions.get(service) : undefined;
      definitions.set(service, version ?? (await meta.addDefinition(service, next)));
    });
    const settings = new Map<string, number>();
    await inBatches([...backup.settings], async ([service, history]) => {
      settings.set(service, await this.#settingsVersionOf(service, history));
    });
    const { generation, revision } = await live.restore({
      definitions,
      settings,
      instances: [...backup.instances.values()],
      away: [...backup.away].map(parseInstanceId),
    });
    await meta.replacePorts([...backup.ports].map(([service, port]) => ({ service, port })));
    return { generation, revision };
  }

  /** Versions of settings that the store has already, as after an import that broke off, are not stored twice. */
  async #settingsVersionOf(service: string, history: readonly BackupSettings[]): Promise<number> {
    const { meta } = this.#on;
    const stored = new Map(
      (await meta.settingsHistory(service, KEPT.settings)).map(({ version, values, at, who }) => [
        identity({ values, at, who }),
        version,
      ]),
    );
    const last = history.at(-1);
    const known = last && stored.get(identity(last));
    if (known !== undefined) return known;
    let version = 0;
    for (const one of history) {
      if (!stored.has(identity(one))) version = await meta.addSettings(service, one.values, one.at, one.who);
    }
    return version;
  }

  async #definitionsOf(versions: ReadonlyMap<string, number>): Promise<ReadonlyMap<string, BackupDefinition>> {
    const definitions = new Map<string, BackupDefinition>();
    await inBatches([...versions], async ([service, version]) => {
      definitions.set(service, await this.#on.meta.definition(service, version));
    });
    return definitions;
  }

  /** What an import would replace. */
  async #content(): Promise<Content> {
    const { live, meta } = this.#on;
    const state = live.state();
    const away = live.away();
    const definitions = new Map<string, BackupDefinition | undefined>();
    await inBatches([...state.definitions], async ([service, version]) => {
      definitions.set(service, await unlessLost(meta.definition(service, version)));
    });
    const settings = new Map<string, BackupSettings["values"] | undefined>();
    await inBatches([...state.settings], async ([service, version]) => {
      settings.set(service, (await unlessLost(meta.settings(service, version)))?.values);
    });
    return {
      definitions,
      settings,
      instances: state.instances,
      away: new Set(away.map(({ service, instance }) => instanceId(service, instance))),
      ports: new Map((await meta.ports()).map(({ service, port }) => [service, port])),
    };
  }
}

/** Undefined for metadata that is gone, as after the loss of its store: that is what an import repairs. */
async function unlessLost<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (LOST.has(errorCode(error) ?? "")) return undefined;
    throw error;
  }
}

function notEmpty(content: Content): ProblemFault {
  const { services, instances, intents, settings, ports } = counts(content);
  const there = `${services} services, ${instances} instances, ${intents} that are away and disabled, settings of ${settings} services, ${ports} ports`;
  return new ProblemFault("conflict", `the registry is not empty (${there}); replace=true replaces all of it`, {
    extra: { needs: "replace" },
  });
}

/** As it stands in a file: what is undefined is left out, what may be anything is JSON. */
function writtenEntry({ at, who, from, kind, target, reason, before, after }: AuditEntry): BackupAudit {
  const json = (value: unknown): BackupAudit["before"] => (value ?? null) as BackupAudit["before"];
  return {
    at,
    who,
    from,
    kind,
    target,
    ...(reason === undefined ? {} : { reason }),
    before: json(before),
    after: json(after),
  };
}

/** What tells entries apart. Not what was before and after: a store may leave out what is too large for it. */
function deedOf({ at, who, from, kind, target, reason }: AuditEntry | BackupAudit): string {
  return JSON.stringify([at, who, from, kind, target, reason]);
}

/** Equal for equal content, whatever the order of its keys: stores give them back in theirs. */
function identity(value: object): string {
  return JSON.stringify(value, (_, part: unknown) =>
    typeof part === "object" && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  );
}

function byName<T>(map: ReadonlyMap<string, T>): readonly (readonly [string, T])[] {
  return [...map].sort(([a], [b]) => (a < b ? -1 : 1));
}

/** In order, batch by batch. */
async function inBatches<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  for (let start = 0; start < items.length; start += AT_ONCE) {
    await Promise.all(items.slice(start, start + AT_ONCE).map(work));
  }
}
