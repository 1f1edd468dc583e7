// The cluster store: live state in ZooKeeper, metadata in DynamoDB, for any number of Atlases on any number of machines.
// Loaded only when it is asked for: the AWS SDK takes time and memory that an embedded Atlas need not pay.
import { type Clock, systemClock } from "../lib/clock.ts";
import { type Logger, silentLogger } from "../lib/logger.ts";
import { DynamoDbMeta } from "./dynamodb.ts";
import type { Stores } from "./stores.ts";
import { createZooKeeperLive } from "./zookeeper-live.ts";

export type ClusterStoreOptions = {
  readonly realm: string;
  /** `HOST:PORT,HOST:PORT,…[/chroot]`. */
  readonly zookeeper: string;
  readonly dynamodb: {
    readonly table: string;
    /** @default AWS's own of the region */
    readonly endpoint?: string | undefined;
    /** @default what AWS_REGION or the profile says */
    readonly region?: string | undefined;
    /** Makes the table when it is missing. */
    readonly createTable: boolean;
  };
  /** Of this Atlas alone: audit entries wait there while DynamoDB is away. Made when missing. */
  readonly dataDir: string;
  /** @default systemClock */
  readonly clock?: Clock;
  /** @default no log */
  readonly logger?: Logger;
};

/** Opens nothing yet: `open()` of either half does, and says what is wrong with it. */
export function createClusterStores(options: ClusterStoreOptions): Stores {
  const { realm, zookeeper, dynamodb, dataDir, clock = systemClock, logger = silentLogger } = options;
  return {
    live: createZooKeeperLive({ servers: zookeeper, realm, clock, logger }),
    meta: new DynamoDbMeta({ ...dynamodb, realm, dataDir, clock, logger }),
  };
}
