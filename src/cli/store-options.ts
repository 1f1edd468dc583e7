// Where the registry lies, as options of `smartstack atlas`: one file on this machine, or ZooKeeper and DynamoDB.
import { z } from "zod";
import type { StoreConfig } from "../atlas/stores.ts";
import { type Address, formatAddress } from "../core/lib/address.ts";
import { type ConfigIssue } from "../core/lib/config-error.ts";
import { formatSource, kebab, type Resolved, type Source, type Values } from "./config.ts";
import { defaultStateDirectory, hostPort, type Kind, oneOf, option, path, toggle, url } from "./options.ts";

/** `HOST:PORT,HOST:PORT,…`, and the path in ZooKeeper that the realm lives under. */
export const ensemble: Kind<string> = {
  placeholder: "HOST:PORT[,…][/PATH]",
  example: "127.0.0.1:2181",
  schema: z.string({ error: "must be HOST:PORT,HOST:PORT,…, perhaps with a /path behind" }).refine((value) => {
    const slash = value.indexOf("/");
    const [servers, chroot] = slash === -1 ? [value, ""] : [value.slice(0, slash), value.slice(slash)];
    const named = servers.split(",").every((server) => {
      const address = hostPort.schema.safeParse(server);
      return address.success && address.data.port > 0;
    });
    return named && /^(\/[A-Za-z0-9._-]+)*$/.test(chroot) && !/\/\.{1,2}(\/|$)/.test(chroot);
  }, "must be HOST:PORT,HOST:PORT,…, perhaps with a /path behind"),
};

/** DynamoDB's own rule. */
const tableName: Kind<string> = {
  placeholder: "NAME",
  example: "smartstack-local",
  schema: z
    .string({ error: "must be the name of a table" })
    .regex(/^[A-Za-z0-9_.-]{3,255}$/, "must be 3 to 255 letters, digits, '_', '-' and '.'"),
};

const region: Kind<string> = {
  placeholder: "REGION",
  example: "us-east-1",
  schema: z
    .string({ error: "must be the name of a region" })
    .regex(/^[a-z][a-z0-9-]{1,62}$/, "must be the name of a region, such as us-east-1"),
};

export const storeOptions = {
  store: option(
    oneOf(["embedded", "cluster"]),
    "where the registry lies: embedded is one SQLite file in --data-dir, cluster is ZooKeeper and DynamoDB",
    "embedded",
  ),
  dataDir: option(
    path("DIR"),
    "directory of the embedded store, and of the cluster store's audit entries that wait; made when missing",
    defaultStateDirectory(),
  ),
  zookeeper: option(ensemble, "cluster: the servers of ZooKeeper, and the path there that this realm lives under"),
  dynamodbTable: option(tableName, "cluster: the realm's table; smartstack-REALM when nobody says"),
  dynamodbEndpoint: option(url, "cluster: another DynamoDB than AWS's own of the region"),
  dynamodbRegion: option(region, "cluster: region of the table; else what AWS_REGION or the AWS profile says"),
  dynamodbCreateTable: option(toggle, "cluster: create the table when it is missing", false),
  advertise: option(url, "cluster: where the other replicas of Atlas reach this one; else where it listens"),
} as const;

/** What only the cluster store has. */
const CLUSTER_ONLY = [
  "zookeeper",
  "dynamodbTable",
  "dynamodbEndpoint",
  "dynamodbRegion",
  "dynamodbCreateTable",
  "advertise",
] as const;

/** Addresses that mean all of this machine's, and are no place where anybody is reached. */
const EVERYWHERE = new Set(["0.0.0.0", "::"]);

type Given = {
  readonly values: Values<typeof storeOptions> & { readonly listen: Address };
  readonly sources: Resolved<typeof storeOptions>["sources"] & { readonly listen: Source };
};

/** The store that the options describe, or everything wrong with how they go together. */
export function storeConfig(realm: string, { values, sources }: Given): StoreConfig | readonly ConfigIssue[] {
  const { store, dataDir, zookeeper, listen, advertise } = values;
  if (store === "embedded") {
    const strangers = CLUSTER_ONLY.filter((key) => sources[key].kind !== "default" && values[key] !== false);
    if (strangers.length === 0) return { kind: "embedded", dataDir };
    return strangers.map((key) => ({
      key: kebab(key),
      source: formatSource(sources[key]),
      message: "is for --store cluster, and this store is embedded",
    }));
  }
  const issues: ConfigIssue[] = [];
  if (zookeeper === undefined) {
    issues.push({
      key: "zookeeper",
      source: formatSource(sources.store),
      message: "is missing: --store cluster needs --zookeeper HOST:PORT,…",
    });
  }
  if (EVERYWHERE.has(listen.host) && advertise === undefined) {
    issues.push({
      key: "advertise",
      source: formatSource(sources.listen),
      message: `is missing: ${formatAddress(listen)} is nowhere that another Atlas could reach; say --advertise http://THIS-HOST:${listen.port}`,
    });
  }
  if (zookeeper === undefined || issues.length > 0) return issues;
  return {
    kind: "cluster",
    zookeeper,
    dynamodb: {
      table: values.dynamodbTable ?? `smartstack-${realm}`,
      endpoint: values.dynamodbEndpoint,
      region: values.dynamodbRegion,
      createTable: values.dynamodbCreateTable,
    },
    dataDir,
  };
}
