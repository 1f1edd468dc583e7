// The slow half of the embedded store: versions, ports and the audit trail, in the same file and transactions as the rest.
import type { Database } from "bun:sqlite";
import { readDefinitionSchema } from "../model/service.ts";
import { type Settings, type SettingsValues, settingsValuesSchema } from "../model/settings.ts";
import type { AuditEntry, DefinitionVersion, MetaStore, PortReservation } from "./meta-store.ts";
import { firstReadable, missingMeta, NEWEST_TRIED, parseMeta } from "./meta-text.ts";
import { lowestFreePort } from "./ports.ts";
import type { SqliteFile } from "./sqlite-file.ts";

/** The newest entries that the audit trail keeps: about 50 MB. */
const AUDIT_KEPT = 100_000;

type DefinitionRow = { definition: string; published: string | null };
type SettingsRow = { version: number; content: string; at: string; who: string };
type AuditRow = {
  at: string;
  who: string;
  peer: string;
  kind: string;
  target: string;
  reason: string | null;
  old: string;
  new: string;
};

export class SqliteMeta implements MetaStore {
  readonly #file: SqliteFile;

  constructor(file: SqliteFile) {
    this.#file = file;
  }

  async open(): Promise<void> {
    this.#file.open();
  }

  async close(): Promise<void> {
    this.#file.close();
  }

  addDefinition(service: string, { definition, published }: DefinitionVersion): Promise<number> {
    return this.#file.write((db) => {
      const version = nextVersion(db, "definition_versions", service);
      db.query("INSERT INTO definition_versions VALUES (?, ?, ?, ?)").run(
        service,
        version,
        JSON.stringify(definition),
        published === undefined ? null : JSON.stringify(published),
      );
      return version;
    });
  }

  async definition(service: string, version: number): Promise<DefinitionVersion> {
    const row = this.#file.read((db) =>
      db
        .query<DefinitionRow, [string, number]>(
          "SELECT definition, published FROM definition_versions WHERE service = ? AND version = ?",
        )
        .get(service, version),
    );
    if (row === null) throw missingMeta(`version ${version} of the definition of ${service}`);
    return definitionOf(service, row);
  }

  async newestDefinition(service: string): Promise<DefinitionVersion | undefined> {
    const rows = this.#file.read((db) =>
      db
        .query<DefinitionRow, [string, number]>(
          "SELECT definition, published FROM definition_versions WHERE service = ? ORDER BY version DESC LIMIT ?",
        )
        .all(service, NEWEST_TRIED),
    );
    return firstReadable(rows, (row) => definitionOf(service, row));
  }

  addSettings(service: string, values: SettingsValues, at: string, who: string): Promise<number> {
    return this.#file.write((db) => {
      const version = nextVersion(db, "settings_versions", service);
      db.query("INSERT INTO settings_versions VALUES (?, ?, ?, ?, ?)").run(
        service,
        version,
        JSON.stringify(values),
        at,
        who,
      );
      return version;
    });
  }

  async settings(service: string, version: number): Promise<Settings> {
    const row = this.#file.read((db) =>
      db
        .query<SettingsRow, [string, number]>("SELECT * FROM settings_versions WHERE service = ? AND version = ?")
        .get(service, version),
    );
    if (row === null) throw missingMeta(`version ${version} of the settings of ${service}`);
    return settingsOf(service, row);
  }

  async settingsHistory(
    service: string,
    limit: number,
  ): Promise<readonly (Settings & { readonly at: string; readonly who: string })[]> {
    const rows = this.#file.read((db) =>
      db
        .query<SettingsRow, [string, number]>(
          "SELECT * FROM settings_versions WHERE service = ? ORDER BY version DESC LIMIT ?",
        )
        .all(service, limit),
    );
    return rows.map((row) => Object.assign(settingsOf(service, row), { at: row.at, who: row.who }));
  }

  reservePort(service: string, taken: ReadonlySet<number>): Promise<PortReservation & { readonly created: boolean }> {
    return this.#file.write((db) => {
      const reservations = portsOf(db);
      const own = reservations.find((reservation) => reservation.service === service);
      if (own !== undefined) return { ...own, created: false };
      const used = new Set(reservations.map(({ port }) => port));
      const port = lowestFreePort(used, taken);
      db.query("INSERT INTO ports VALUES (?, ?)").run(service, port);
      return { service, port, created: true };
    });
  }

  async ports(): Promise<readonly PortReservation[]> {
    return this.#file.read(portsOf);
  }

  releasePort(service: string): Promise<boolean> {
    return this.#file.write((db) => db.query("DELETE FROM ports WHERE service = ?").run(service).changes > 0);
  }

  replacePorts(ports: readonly PortReservation[]): Promise<void> {
    return this.#file.write((db) => {
      db.run("DELETE FROM ports");
      for (const { service, port } of ports) db.query("INSERT INTO ports VALUES (?, ?)").run(service, port);
    });
  }

  // not durable by itself: an audit entry rides on the fsync of the next write, and kill -9 does not reach it
  addAudit(entry: AuditEntry): Promise<void> {
    return this.#file.write(
      (db) => {
        const { lastInsertRowid } = db
          .query("INSERT INTO audit (at, who, peer, kind, target, reason, old, new) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
          .run(
            entry.at,
            entry.who,
            entry.from,
            entry.kind,
            entry.target,
            entry.reason ?? null,
            JSON.stringify(entry.before ?? null),
            JSON.stringify(entry.after ?? null),
          );
        const number = Number(lastInsertRowid);
        if (number % 1_000 === 0) db.query("DELETE FROM audit WHERE number <= ?").run(number - AUDIT_KEPT);
      },
      { durable: false },
    );
  }

  async audit(limit: number): Promise<readonly AuditEntry[]> {
    const rows = this.#file.read((db) =>
      db.query<AuditRow, [number]>("SELECT * FROM audit ORDER BY at DESC, number DESC LIMIT ?").all(limit),
    );
    return rows.map(({ at, who, peer, kind, target, reason, old, new: after }) => ({
      at,
      who,
      from: peer,
      kind,
      target,
      reason: reason ?? undefined,
      before: JSON.parse(old),
      after: JSON.parse(after),
    }));
  }

  degraded(): string | undefined {
    return this.#file.trouble();
  }
}

function nextVersion(db: Database, table: "definition_versions" | "settings_versions", service: string): number {
  const row = db
    .query<{ newest: number | null }, [string]>(`SELECT max(version) AS newest FROM ${table} WHERE service = ?`)
    .get(service);
  return (row?.newest ?? 0) + 1;
}

function portsOf(db: Database): PortReservation[] {
  return db.query<PortReservation, []>("SELECT service, port FROM ports ORDER BY port").all();
}

function definitionOf(service: string, { definition, published }: DefinitionRow): DefinitionVersion {
  return {
    definition: parseMeta(readDefinitionSchema, definition, `the definition of ${service}`),
    published:
      published === null
        ? undefined
        : parseMeta(readDefinitionSchema, published, `the published definition of ${service}`),
  };
}

function settingsOf(service: string, { version, content }: SettingsRow): Settings {
  return { service, version, values: parseMeta(settingsValuesSchema, content, `the settings of ${service}`) };
}
