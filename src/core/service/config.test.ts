import { describe, expect, test } from "bun:test";
import { inspect } from "node:util";
import { z } from "zod";
import { type ConfigLayer, type Defaults, resolveServiceConfig } from "./config.ts";
import { ConfigError } from "../lib/config-error.ts";
import { type Secret, secret } from "./secret.ts";

const environment = (values: Record<string, string>): ConfigLayer => ({
  form: "text",
  closed: false,
  values: new Map(Object.entries(values).map(([key, raw]) => [key, { raw, source: `environment ${key}` }])),
});
const file = (values: Record<string, unknown>): ConfigLayer => ({
  form: "data",
  closed: true,
  values: new Map(
    Object.entries(values).map(([key, raw], index) => [key, { raw, source: `settings.yaml:${index + 1}` }]),
  ),
});
const flags = (values: Record<string, string>): ConfigLayer => ({
  form: "text",
  closed: true,
  values: new Map(Object.entries(values).map(([key, raw]) => [key, { raw, source: "flag --set" }])),
});

function issuesOf(defaults: Defaults, layers: readonly ConfigLayer[]): readonly string[] {
  try {
    resolveServiceConfig(defaults, layers);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.issues.map(({ key, source, message }) => `${key} (${source}): ${message}`);
  }
}

const defaults = {
  PAGE_SIZE: 20,
  GREETING: "hello",
  DEBUG: false,
  TAGS: ["a", "b"],
  PORTS: [1, 2],
  LIMITS: { perUser: 5, name: "x" },
  MODE: z.enum(["fast", "safe"]).default("fast"),
  UPSTREAM: z.url().optional(),
  RATIO: z.number().default(0.5),
};

describe("a configuration", () => {
  test("is the defaults when nobody says anything", () => {
    expect(resolveServiceConfig(defaults, []).config).toEqual({
      PAGE_SIZE: 20,
      GREETING: "hello",
      DEBUG: false,
      TAGS: ["a", "b"],
      PORTS: [1, 2],
      LIMITS: { perUser: 5, name: "x" },
      MODE: "fast",
      UPSTREAM: undefined,
      RATIO: 0.5,
    });
  });

  test("takes each key from the highest layer that has it, and says which", () => {
    const layers = [
      file({ PAGE_SIZE: 1, GREETING: "file", DEBUG: true }),
      environment({ PAGE_SIZE: "2", GREETING: "env" }),
      flags({ PAGE_SIZE: "3" }),
    ];
    const { config, provenance } = resolveServiceConfig(defaults, layers);
    expect(config).toMatchObject({ PAGE_SIZE: 3, GREETING: "env", DEBUG: true });
    expect(provenance.slice(0, 4)).toEqual([
      { key: "PAGE_SIZE", shown: "3", source: "flag --set" },
      { key: "GREETING", shown: "env", source: "environment GREETING" },
      { key: "DEBUG", shown: "true", source: "settings.yaml:3" },
      { key: "TAGS", shown: '["a","b"]', source: "default" },
    ]);
  });

  test("reads text as what the default is", () => {
    const layer = environment({
      PAGE_SIZE: "7",
      DEBUG: "yes",
      TAGS: "x, y",
      PORTS: "[3,4]",
      LIMITS: '{"perUser":9}',
      RATIO: "0.25",
      UPSTREAM: "http://a.example",
    });
    expect(resolveServiceConfig(defaults, [layer]).config).toMatchObject({
      PAGE_SIZE: 7,
      DEBUG: true,
      TAGS: ["x", "y"],
      PORTS: [3, 4],
      LIMITS: { perUser: 9, name: "x" },
      RATIO: 0.25,
      UPSTREAM: "http://a.example",
    });
  });

  test("names every bad key at once, with where it came from", () => {
    const layers = [
      file({ PAGE_SIZE: "many", PAGESIZE: 3 }),
      environment({ DEBUG: "perhaps", PORTS: "1,two", MODE: "slow" }),
    ];
    expect(issuesOf(defaults, layers)).toEqual([
      "PAGESIZE (settings.yaml:2): is not a key of this service; it has PAGE_SIZE, GREETING, DEBUG, TAGS, PORTS, LIMITS, MODE, UPSTREAM, RATIO",
      "PAGE_SIZE (settings.yaml:1): must be a number",
      "DEBUG (environment DEBUG): must be true or false",
      "PORTS (environment PORTS): 1: must be a number",
      "MODE (environment MODE): must be one of fast, safe",
    ]);
  });

  test("demands what has no default", () => {
    expect(issuesOf({ UPSTREAM: z.url(), API_KEY: secret() }, [])).toEqual([
      "UPSTREAM (default): must be set: in the environment as UPSTREAM, in the settings file, or with --set UPSTREAM=…",
      "API_KEY (default): must be set: in the environment as API_KEY, in the settings file, or with --set API_KEY=…",
    ]);
  });

  test("refuses a default that is no schema, and a key that no variable could have", () => {
    const wrong = { BAD: (() => undefined) as unknown as object, "not-a-key": 1 };
    expect(issuesOf(wrong, [])).toEqual([
      "BAD (default): a default is a string, a number, true or false, a list, an object, a zod schema or secret()",
      "not-a-key (default): a key is letters, digits and '_', and begins with no digit",
    ]);
  });
});

describe("a secret", () => {
  const planted = "s3cr3t-value";
  const resolved = resolveServiceConfig({ SIGNATURE: secret(), DB_PASSWORD: "plain-but-named" }, [
    environment({ SIGNATURE: planted }),
  ]);

  test("is revealed only on purpose", () => {
    const value = resolved.config.SIGNATURE as Secret;
    expect(value.reveal()).toBe(planted);
    for (const text of [String(value), JSON.stringify(resolved), inspect(resolved, { depth: 9 }), Bun.inspect(value)])
      expect(text).not.toContain(planted);
  });

  test("is masked where values are shown, and so is what is only named like one", () => {
    expect(resolved.provenance.map(({ shown }) => shown)).toEqual(["[secret]", "[secret]"]);
  });

  test("is masked inside of a value, and as the password of a URL", () => {
    const values = {
      DATABASE: { host: "db", password: planted },
      UPSTREAMS: [`redis://me:${planted}@host/0`],
      PAGE: "http://a/b",
    };
    const shown = resolveServiceConfig(values, []).provenance.map((one) => one.shown);
    expect(shown).toEqual(['{"host":"db","password":"[secret]"}', '["redis://me:[secret]@host/0"]', "http://a/b"]);
  });

  test("does not appear in the message that refuses it", () => {
    const rule = z.string().refine(() => false, { error: ({ input }) => `no ${String(input)}` });
    const issues = issuesOf({ SIGNATURE: secret(rule) }, [environment({ SIGNATURE: planted })]);
    expect(issues).toHaveLength(1);
    expect(issues[0]).not.toContain(planted);
  });
});
