// The embedded store: both halves of the registry in one SQLite file, for one Atlas on one machine.
import { type Clock, systemClock } from "../lib/clock.ts";
import type { LiveStore } from "./live-store.ts";
import type { MetaStore } from "./meta-store.ts";
import { SqliteFile } from "./sqlite-file.ts";
import { SqliteLive } from "./sqlite-live.ts";
import { SqliteMeta } from "./sqlite-meta.ts";

export type SqliteStoreOptions = {
  /** Where `atlas.db` lies; made when missing. */
  readonly directory: string;
  readonly realm: string;
  /** @default systemClock */
  readonly clock?: Clock;
};

/** The two halves of a registry. Both are opened before use, and closed together. */
export type Stores = { readonly live: LiveStore; readonly meta: MetaStore };

/** Opens nothing yet: `open()` of either half does, and says what is wrong with the directory. */
export function createSqliteStores({ directory, realm, clock = systemClock }: SqliteStoreOptions): Stores {
  const file = new SqliteFile(directory);
  return { live: new SqliteLive({ file, realm, clock }), meta: new SqliteMeta(file) };
}
