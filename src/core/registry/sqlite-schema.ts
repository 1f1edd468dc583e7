// The shape of the embedded store's file, as the list of steps that led to it.
import type { Database } from "bun:sqlite";
import { Fault } from "../lib/errors.ts";

/** "smst": how `file` and this program tell our file from any other SQLite file. */
const APPLICATION_ID = 0x73_6d_73_74;

/** Step n brings a file from schema version n to n + 1. Released steps never change; new ones are added at the end. */
export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
  -- registration NULL: the instance is away and disabled, only the operator's intent is kept
  CREATE TABLE instances (
    service TEXT NOT NULL, instance TEXT NOT NULL, enabled INTEGER NOT NULL, registration TEXT,
    PRIMARY KEY (service, instance)
  ) WITHOUT ROWID;
  CREATE TABLE removed (id TEXT PRIMARY KEY, reason TEXT NOT NULL, revision INTEGER NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE definitions (service TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE settings (service TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;

  CREATE TABLE definition_versions (
    service TEXT NOT NULL, version INTEGER NOT NULL, definition TEXT NOT NULL, published TEXT,
    PRIMARY KEY (service, version)
  ) WITHOUT ROWID;
  CREATE TABLE settings_versions (
    service TEXT NOT NULL, version INTEGER NOT NULL, content TEXT NOT NULL, at TEXT NOT NULL, who TEXT NOT NULL,
    PRIMARY KEY (service, version)
  ) WITHOUT ROWID;
  CREATE TABLE ports (service TEXT PRIMARY KEY, port INTEGER NOT NULL UNIQUE) WITHOUT ROWID;
  CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, who TEXT NOT NULL, peer TEXT NOT NULL, kind TEXT NOT NULL,
    target TEXT NOT NULL, reason TEXT, old TEXT NOT NULL, new TEXT NOT NULL
  );
  `,
  // an import brings entries that are older than those that are there
  "CREATE INDEX audit_at ON audit (at, number)",
];

/**
 * Brings a file to the newest schema, all steps in one transaction.
 * @param path of the file, for messages
 * @throws Fault `store_foreign` when it is another program's file, `store_newer` when a newer version wrote it
 */
export function migrate(db: Database, migrations: readonly string[], path: string): void {
  const version = pragma(db, "user_version");
  const tables = db.query<{ n: number }, []>("SELECT count(*) AS n FROM sqlite_schema").get()?.n ?? 0;
  if (tables > 0 && pragma(db, "application_id") !== APPLICATION_ID) {
    throw new Fault({
      code: "store_foreign",
      message: `${path} is another program's file`,
      hint: "Give --data-dir a directory of Atlas's own.",
    });
  }
  if (version > migrations.length) {
    throw new Fault({
      code: "store_newer",
      message: `${path} was written by a newer smartstack (schema ${version}, this one knows ${migrations.length})`,
      hint: "Run the newer version, or restore a backup from before the upgrade.",
    });
  }
  if (version === migrations.length) return;
  db.transaction(() => {
    for (const step of migrations.slice(version)) db.run(step);
    db.run(`PRAGMA application_id = ${APPLICATION_ID}`);
    db.run(`PRAGMA user_version = ${migrations.length}`);
  }).exclusive();
}

function pragma(db: Database, name: string): number {
  const row = db.query<Record<string, number>, []>(`PRAGMA ${name}`).get();
  return row?.[name] ?? 0;
}
