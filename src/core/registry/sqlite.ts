// The embedded store: both halves of the registry in one SQLite file, for one Atlas on one machine.
import { type Clock, systemClock } from "../lib/clock.ts";
import { SqliteFile } from "./sqlite-file.ts";
import { SqliteLive } from "./sqlite-live.ts";
import { SqliteMeta } from "./sqlite-meta.ts";
import type { Stores } from "./stores.ts";

export type SqliteStoreOptions = {
  /** Where `atlas.db` lies; made when missing. */
  readonly directory: string;
  readonly realm: string;
  /** @default systemClock */
  readonly clock?: Clock;
};

/** Opens nothing yet: `open()` of either half does, and says what is wrong with the directory. */
export function createSqliteStores({ directory, realm, clock = systemClock }: SqliteStoreOptions): Stores {
  const file = new SqliteFile(directory);
  return { live: new SqliteLive({ file, realm, clock }), meta: new SqliteMeta(file) };
}
