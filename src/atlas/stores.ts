// Which store an Atlas runs on.
import type { Clock } from "../core/lib/clock.ts";
import type { Logger } from "../core/lib/logger.ts";
import type { ClusterStoreOptions } from "../core/registry/cluster.ts";
import { createSqliteStores } from "../core/registry/sqlite.ts";
import type { Stores } from "../core/registry/stores.ts";

export type StoreConfig =
  /** `dataDir` is made when missing. */
  | { readonly kind: "embedded"; readonly dataDir: string }
  | ({ readonly kind: "cluster" } & Pick<ClusterStoreOptions, "zookeeper" | "dynamodb" | "dataDir">);

export type StoreSurroundings = { readonly realm: string; readonly clock: Clock; readonly logger: Logger };

/** Opens nothing yet. */
export async function createStores(config: StoreConfig, { realm, clock, logger }: StoreSurroundings): Promise<Stores> {
  if (config.kind === "embedded") return createSqliteStores({ directory: config.dataDir, realm, clock });
  // the AWS SDK comes only to those who use it
  const { createClusterStores } = await import("../core/registry/cluster.ts");
  const { zookeeper, dynamodb, dataDir } = config;
  return createClusterStores({ zookeeper, dynamodb, dataDir, realm, clock, logger });
}
