// The slow half of the cluster store: immutable versions, ports and the audit trail in one DynamoDB table of the realm.
// How it is laid out is in dynamodb-items.ts; why, in docs/storage.md.
import { join } from "node:path";
import { GetItemCommand, PutItemCommand } from "@aws-sdk/client-dynamodb";
import { fullJitter } from "../lib/backoff.ts";
import { type Clock, systemClock } from "../lib/clock.ts";
import { Fault } from "../lib/errors.ts";
import { type Logger, silentLogger } from "../lib/logger.ts";
import { readDefinitionSchema } from "../model/service.ts";
import { type Settings, type SettingsValues, settingsValuesSchema } from "../model/settings.ts";
import { AuditSpool } from "./audit-spool.ts";
import { auditLine, DynamoDbAudit } from "./dynamodb-audit.ts";
import { DynamoDb, type DynamoDbOptions, isConditionFailed } from "./dynamodb-client.ts";
import { checkSize, type Item, text, type Versioned, versionKey, versionOf, versionsKey } from "./dynamodb-items.ts";
import { DynamoDbPorts } from "./dynamodb-ports.ts";
import { query } from "./dynamodb-query.ts";
import { openTable } from "./dynamodb-table.ts";
import type { AuditBacklog, AuditEntry, DefinitionVersion, MetaStore, PortReservation } from "./meta-store.ts";
import { firstReadable, missingMeta, NEWEST_TRIED, parseMeta } from "./meta-text.ts";

export type DynamoDbMetaOptions = Omit<DynamoDbOptions, "clock"> & {
  readonly realm: string;
  /** Makes a table that is missing. */
  readonly createTable: boolean;
  /** Where audit entries wait while DynamoDB is away: `audit` in it. */
  readonly dataDir: string;
  /** @default systemClock */
  readonly clock?: Clock;
  /** @default no log */
  readonly logger?: Logger;
  /** What may wait on disk. @default 64 MiB */
  readonly spoolBytes?: number;
};

/** Writers of one service's versions that are first one after the other; then this one gives up. */
const ROUNDS = 40;
const BACKOFF = { baseMs: 5, capMs: 100 };
/** How long a reader of the audit trail waits for what this Atlas wrote just before. */
const AUDIT_WAIT_MS = 2_000;

export class DynamoDbMeta implements MetaStore {
  readonly #options: DynamoDbMetaOptions;
  readonly #clock: Clock;
  readonly #db: DynamoDb;
  readonly #ports: DynamoDbPorts;
  readonly #audit: DynamoDbAudit;
  readonly #spool: AuditSpool;
  /** What tells this process's audit entries from all others'. */
  readonly #self = crypto.randomUUID().slice(0, 8);
  #entries = 0;
  /** Refused audit entries that the trail does not tell of yet. */
  #untold = 0;

  constructor(options: DynamoDbMetaOptions) {
    const { clock = systemClock, logger = silentLogger, dataDir, spoolBytes } = options;
    this.#options = options;
    this.#clock = clock;
    this.#db = new DynamoDb({ ...options, clock });
    this.#ports = new DynamoDbPorts(this.#db, clock);
    const audit = new DynamoDbAudit(this.#db, clock, logger);
    this.#audit = audit;
    this.#spool = new AuditSpool({
      directory: join(dataDir, "audit"),
      store: (lines) => audit.store(lines),
      clock,
      logger,
      ...(spoolBytes === undefined ? {} : { maxBytes: spoolBytes }),
    });
  }

  /** @throws Fault `store_*` with what to do, `unavailable` when DynamoDB does not answer within 5 s */
  async open(): Promise<void> {
    await this.#db.connect();
    const { realm, createTable } = this.#options;
    await openTable(this.#db, { realm, create: createTable, clock: this.#clock });
    this.#spool.open();
    this.#db.watch();
  }

  async close(): Promise<void> {
    await this.#spool.close();
    this.#db.close();
  }

  async addDefinition(service: string, { definition, published }: DefinitionVersion): Promise<number> {
    const content = { definition: JSON.stringify(definition), published: published && JSON.stringify(published) };
    return this.#addVersion("definition", service, content);
  }

  async definition(service: string, version: number): Promise<DefinitionVersion> {
    return definitionOf(service, await this.#version("definition", service, version));
  }

  async newestDefinition(service: string): Promise<DefinitionVersion | undefined> {
    const items = await query(this.#db, versionsKey("definition", service), { newest: NEWEST_TRIED });
    return firstReadable(items, (item) => definitionOf(service, item));
  }

  addSettings(service: string, values: SettingsValues, at: string, who: string): Promise<number> {
    return this.#addVersion("settings", service, { values: JSON.stringify(values), at, who });
  }

  async settings(service: string, version: number): Promise<Settings> {
    return settingsOf(service, await this.#version("settings", service, version));
  }

  async settingsHistory(
    service: string,
    limit: number,
  ): Promise<readonly (Settings & { readonly at: string; readonly who: string })[]> {
    const items = await query(this.#db, versionsKey("settings", service), { newest: limit });
    return items.map((item) =>
      Object.assign(settingsOf(service, item), { at: text(item, "at"), who: text(item, "who") }),
    );
  }

  reservePort(service: string, taken: ReadonlySet<number>): Promise<PortReservation & { readonly created: boolean }> {
    return this.#ports.reserve(service, taken);
  }

  ports(): Promise<readonly PortReservation[]> {
    return this.#ports.all();
  }

  releasePort(service: string): Promise<boolean> {
    return this.#ports.release(service);
  }

  replacePorts(ports: readonly PortReservation[]): Promise<void> {
    return this.#ports.replace(ports);
  }

  /** Resolves at once: the entry is on this machine's disk, and in DynamoDB when it is well. @throws Fault `spool_*` */
  async addAudit(entry: AuditEntry): Promise<void> {
    try {
      if (this.#untold > 0) {
        this.#spool.append(this.#line(gap(entry.at, this.#untold)));
        this.#untold = 0;
      }
      this.#spool.append(this.#line(entry));
    } catch (error) {
      this.#untold += 1;
      throw error;
    }
  }

  /**
   * What DynamoDB has, this process's own entries included; what other replicas still have on disk is not in it.
   * @throws Fault `unavailable` when DynamoDB is away, or this process's own entries are still on their way
   */
  async audit(limit: number): Promise<readonly AuditEntry[]> {
    if (this.#db.trouble() === undefined && !(await this.#spool.flushed(AUDIT_WAIT_MS))) {
      throw new Fault({
        code: "unavailable",
        message: `${this.#spool.waiting} audit entries of this Atlas are still on their way to DynamoDB`,
        hint: "Try again in a few seconds.",
      });
    }
    return this.#audit.newest(limit);
  }

  auditBacklog(): AuditBacklog {
    return { waiting: this.#spool.waiting, dropped: this.#spool.dropped };
  }

  degraded(): string | undefined {
    const trouble = this.#db.trouble();
    if (trouble === undefined)
      return this.#untold > 0 ? `${this.#untold} audit entries are in the log alone` : undefined;
    const { waiting, dropped } = this.auditBacklog();
    const lost = dropped === 0 ? "" : `, ${dropped} did not fit and are in the log alone`;
    return waiting + dropped === 0 ? trouble : `${trouble}; ${waiting} audit entries wait on disk${lost}`;
  }

  #line(entry: AuditEntry): string {
    this.#entries += 1;
    return auditLine(`${entry.at}#${this.#self}#${String(this.#entries).padStart(10, "0")}`, entry);
  }

  /**
   * Stores the next version. Its number comes from the newest that is there, and the condition that its own is not decides
   * between writers: no counter that could fall behind what it counts.
   */
  async #addVersion(
    kind: Versioned,
    service: string,
    content: Readonly<Record<string, string | undefined>>,
  ): Promise<number> {
    const texts = Object.entries(content).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, value] as const],
    );
    checkSize(
      `the ${kind} of ${service}`,
      texts.map(([, value]) => value),
    );
    // tells our own version, stored by an attempt whose answer was lost, from another writer's
    const writer = crypto.randomUUID();
    const attributes = Object.fromEntries([...texts, ["writer", writer] as const].map(([name, S]) => [name, { S }]));
    for (let round = 0; round < ROUNDS; round += 1) {
      const [newest] = await query(this.#db, versionsKey(kind, service), { newest: 1 });
      if (newest?.writer?.S === writer) return versionOf(newest);
      const version = (newest === undefined ? 0 : versionOf(newest)) + 1;
      if (await this.#putVersion({ ...versionKey(kind, service, version), ...attributes })) return version;
      await this.#clock.sleep(fullJitter(round, BACKOFF));
    }
    throw new Fault({
      code: "unavailable",
      message: `the ${kind} of ${service} is written by too many at once`,
      hint: "Try again.",
    });
  }

  /** False when there is such a version, perhaps ours. */
  async #putVersion(item: Item): Promise<boolean> {
    const command = { TableName: this.#db.table, Item: item, ConditionExpression: "attribute_not_exists(pk)" };
    try {
      await this.#db.call((client, send) => client.send(new PutItemCommand(command), send));
      return true;
    } catch (error) {
      if (isConditionFailed(error)) return false;
      throw error;
    }
  }

  async #version(kind: Versioned, service: string, version: number): Promise<Item> {
    const { Item } = await this.#db.call((client, send) =>
      client.send(
        new GetItemCommand({
          TableName: this.#db.table,
          Key: versionKey(kind, service, version),
          ConsistentRead: true,
        }),
        send,
      ),
    );
    if (Item === undefined) throw missingMeta(`version ${version} of the ${kind} of ${service}`);
    return Item;
  }
}

function definitionOf(service: string, item: Item): DefinitionVersion {
  const published = item.published?.S;
  const what = `the definition of ${service}`;
  return {
    definition: parseMeta(readDefinitionSchema, text(item, "definition"), what),
    published:
      published === undefined ? undefined : parseMeta(readDefinitionSchema, published, `what ${service} published`),
  };
}

function settingsOf(service: string, item: Item): Settings {
  const values = parseMeta(settingsValuesSchema, text(item, "values"), `the settings of ${service}`);
  return { service, version: versionOf(item), values };
}

/** An entry that tells of those that found no room. */
function gap(at: string, entries: number): AuditEntry {
  return { at, who: "atlas", from: "", kind: "audit.gap", target: "audit", before: null, after: { entries } };
}
