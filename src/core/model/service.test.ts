import { describe, expect, test } from "bun:test";
import {
  type Definition,
  defaultDefinition,
  definitionSchema,
  mergePublished,
  readDefinitionSchema,
} from "./service.ts";

const define = (input: unknown): Definition => definitionSchema.parse(input);
const pathsOf = (input: unknown): string[] =>
  definitionSchema.safeParse(input).error?.issues.map((issue) => issue.path.join(".")) ?? [];

describe("a definition", () => {
  test("has the defaults of the design when nothing is said", () => {
    expect(defaultDefinition).toEqual({
      description: "",
      owner: "",
      protocol: "http",
      healthcheck: { path: "/healthcheck", intervalMs: 2_000, timeoutMs: 1_000, rise: 2, fall: 3 },
      balance: "random",
      timeouts: { connectMs: 300, queueMs: 1_000, requestMs: 30_000 },
      retries: 3,
    });
  });

  test("keeps the defaults beside a value that is given", () => {
    expect(define({ healthcheck: { path: "/up" }, timeouts: { queueMs: 5 } })).toEqual({
      ...defaultDefinition,
      healthcheck: { ...defaultDefinition.healthcheck, path: "/up" },
      timeouts: { ...defaultDefinition.timeouts, queueMs: 5 },
    });
  });

  test("is the same after it was written and read", () => {
    const definition = define({
      protocol: "tcp",
      localPort: 6379,
      split: { "1.0": 99, "1.1": 1 },
      datastores: ["redis"],
    });
    expect(define(JSON.parse(JSON.stringify(definition)))).toEqual(definition);
  });

  test("names every bad field", () => {
    expect(
      pathsOf({ owner: 5, healthcheck: { path: "no-slash", rise: 0 }, timeouts: { connectMs: 1.5 }, balance: "magic" }),
    ).toEqual(["owner", "healthcheck.path", "healthcheck.rise", "balance", "timeouts.connectMs"]);
  });

  test("refuses unknown fields, also inside", () => {
    expect(definitionSchema.safeParse({ colour: "red" }).success).toBe(false);
    expect(definitionSchema.safeParse({ healthcheck: { paht: "/x" } }).success).toBe(false);
  });

  test("cannot carry text that breaks out of a line of HAProxy's configuration", () => {
    for (const path of ["/a b", '/a"', "/a\n", "/a#", "/a\\", "/a'", "/ä"])
      expect([path, pathsOf({ healthcheck: { path } })]).toEqual([path, ["healthcheck.path"]]);
    expect(pathsOf({ description: "two\nlines" })).toEqual(["description"]);
    expect(pathsOf({ split: { 'v"1': 100 } })).not.toEqual([]);
  });

  test("has a localPort only with tcp", () => {
    expect(pathsOf({ localPort: 6379 })).toEqual(["localPort"]);
    expect(pathsOf({ protocol: "tcp", localPort: 6379 })).toEqual([]);
  });

  test("splits all of the traffic", () => {
    expect(pathsOf({ split: { a: 50, b: 49 } })).toEqual(["split"]);
    expect(pathsOf({ split: { a: 33.3, b: 33.3, c: 33.4 } })).toEqual([]);
    expect(pathsOf({ split: {} })).toEqual([]);
  });
});

describe("a reader of definitions", () => {
  test("drops what a newer Atlas added, at both levels", () => {
    expect(
      readDefinitionSchema.parse({ colour: "red", owner: "core", healthcheck: { path: "/up", colour: 1 } }),
    ).toEqual(define({ owner: "core", healthcheck: { path: "/up" } }));
  });

  test("still refuses a known field that is wrong, and says which", () => {
    const issues = readDefinitionSchema.safeParse({ healthcheck: { rise: 0 }, owner: 1 }).error?.issues;
    expect(issues?.map((issue) => issue.path.join("."))).toEqual(["owner", "healthcheck.rise"]);
    for (const bad of [null, [], "text", { healthcheck: null }])
      expect([bad, readDefinitionSchema.safeParse(bad).success]).toEqual([bad, false]);
  });
});

describe("publishing a definition", () => {
  const published = define({ owner: "core", retries: 2, healthcheck: { path: "/up", rise: 2 } });

  test("takes everything when nobody defined the service", () => {
    expect(mergePublished(undefined, undefined, published)).toEqual(published);
  });

  test("follows the service where no operator edited", () => {
    const next = define({ owner: "money", healthcheck: { path: "/health" }, slowStartMs: 500 });
    expect(mergePublished(published, published, next)).toEqual(next);
  });

  test("keeps an operator's edits and follows the rest, one level into objects", () => {
    const edited = define({ ...published, retries: 9, healthcheck: { ...published.healthcheck, rise: 5 } });
    const next = define({ owner: "money", retries: 1, healthcheck: { path: "/health", rise: 1 } });
    expect(mergePublished(edited, published, next)).toEqual(
      define({ owner: "money", retries: 9, healthcheck: { path: "/health", rise: 5 } }),
    );
  });

  test("keeps what an operator removed removed, and drops what the service no longer says", () => {
    const before = define({ slowStartMs: 500, maxConnections: 10 });
    const { slowStartMs: _, ...removed } = before;
    expect(mergePublished(removed, before, define({ slowStartMs: 900 }))).toEqual(defaultDefinition);
  });

  test("counts what differs from the defaults as edited when the service never published", () => {
    expect(mergePublished(define({ retries: 7 }), undefined, define({ retries: 1, owner: "core" }))).toEqual(
      define({ retries: 7, owner: "core" }),
    );
  });

  test("is the same when it happens twice", () => {
    const edited = define({ ...published, retries: 9 });
    const once = mergePublished(edited, published, define({ owner: "money" }));
    expect(mergePublished(once, define({ owner: "money" }), define({ owner: "money" }))).toEqual(once);
  });

  test("never makes a definition that is no longer valid: protocol and localPort go together", () => {
    const edited = define({ protocol: "h2c" });
    const next = define({ protocol: "tcp", localPort: 7000, owner: "core" });
    expect(mergePublished(edited, defaultDefinition, next)).toEqual(define({ protocol: "h2c", owner: "core" }));
    expect(mergePublished(next, next, define({ owner: "core" }))).toEqual(define({ owner: "core" }));
  });
});
