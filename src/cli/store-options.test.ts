import { describe, expect, test } from "bun:test";
import { type ConfigIssue } from "../core/lib/config-error.ts";
import { resolveConfig } from "./config.ts";
import { hostPort, option } from "./options.ts";
import { ensemble, storeConfig, storeOptions } from "./store-options.ts";

const options = { ...storeOptions, listen: option(hostPort, "", { host: "127.0.0.1", port: 7400 }) };

function configOf(flags: Readonly<Record<string, unknown>>, environment: Readonly<Record<string, string>> = {}) {
  return storeConfig("prod", resolveConfig(options, { flags, environment }));
}

function issuesOf(...given: Parameters<typeof configOf>): readonly string[] {
  const config = configOf(...given);
  if ("kind" in config) throw new Error("this should have been refused");
  return config.map(({ key, source, message }: ConfigIssue) => `${key} (${source}): ${message}`);
}

describe("the store", () => {
  test("is embedded when nobody says", () => {
    expect(configOf({ dataDir: "/data" })).toEqual({ kind: "embedded", dataDir: "/data" });
  });

  test("is ZooKeeper and a table named after the realm", () => {
    expect(configOf({ store: "cluster", dataDir: "/data", zookeeper: "zk1:2181,zk2:2181/prod" })).toEqual({
      kind: "cluster",
      dataDir: "/data",
      zookeeper: "zk1:2181,zk2:2181/prod",
      dynamodb: { table: "smartstack-prod", endpoint: undefined, region: undefined, createTable: false },
    });
  });

  test("takes everything that is said about DynamoDB", () => {
    const flags = {
      store: "cluster",
      zookeeper: "zk1:2181",
      dynamodbTable: "other",
      dynamodbEndpoint: "http://127.0.0.1:8000",
      dynamodbRegion: "eu-west-1",
      dynamodbCreateTable: true,
    };
    expect(configOf(flags)).toMatchObject({
      dynamodb: { table: "other", endpoint: "http://127.0.0.1:8000", region: "eu-west-1", createTable: true },
    });
  });

  test("of one kind refuses every option of the other, each with where it came from", () => {
    expect(issuesOf({ zookeeper: "zk1:2181" }, { SMARTSTACK_DYNAMODB_TABLE: "other" })).toEqual([
      "zookeeper (flag --zookeeper): is for --store cluster, and this store is embedded",
      "dynamodb-table (environment SMARTSTACK_DYNAMODB_TABLE): is for --store cluster, and this store is embedded",
    ]);
    expect(configOf({ dynamodbCreateTable: false })).toMatchObject({ kind: "embedded" });
  });

  test("of a cluster needs its ZooKeeper, and an address where others reach it", () => {
    expect(issuesOf({ store: "cluster", listen: "0.0.0.0:7400" })).toEqual([
      "zookeeper (flag --store): is missing: --store cluster needs --zookeeper HOST:PORT,…",
      "advertise (flag --listen): is missing: 0.0.0.0:7400 is nowhere that another Atlas could reach; say --advertise http://THIS-HOST:7400",
    ]);
    const advertised = { store: "cluster", zookeeper: "zk1:2181", listen: "[::]:7400", advertise: "http://a:7400" };
    expect(configOf(advertised)).toMatchObject({ kind: "cluster" });
  });
});

test("an ensemble is addresses with commas between them, and perhaps a path", () => {
  for (const good of ["zk1:2181", "10.0.0.1:2181,[::1]:2181", "zk1:2181/a", "zk1:2181,zk2:2181/smartstack/prod"]) {
    expect(ensemble.schema.safeParse(good).success).toBe(true);
  }
  for (const bad of [
    "",
    "zk1",
    "zk1:0",
    "zk1:2181,",
    "zk1:2181/",
    "zk1:2181/a/",
    "zk1:2181//a",
    "zk1:2181/a b",
    "zk1:2181/..",
    5,
  ]) {
    expect([bad, ensemble.schema.safeParse(bad).success]).toEqual([bad, false]);
  }
});
