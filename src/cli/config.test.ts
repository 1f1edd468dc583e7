import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ConfigError, type ConfigIssue } from "../core/lib/config-error.ts";
import {
  environmentNameOf,
  flagOf,
  formatSource,
  type Given,
  loadConfig,
  readText,
  resolveConfig,
  suggest,
} from "./config.ts";
import { flagOnly, hostPort, integer, list, oneOf, option, path, port, text, texts, toggle, urls } from "./options.ts";

const options = {
  listen: option(hostPort, "where to listen", { host: "127.0.0.1", port: 7400 }),
  dataDir: option(path("DIR"), "where state lies", "/var/lib/smartstack"),
  store: option(oneOf(["embedded", "cluster"]), "kind of store", "embedded"),
  weight: option(integer("N", 0, 256), "weight", 100),
  port: option(port, "port"),
  atlas: option(urls, "Atlas", ["http://127.0.0.1:7400"]),
  zone: option(text("ZONE"), "zone"),
  tags: option(list("A,B"), "tags"),
  header: option(texts("K: V"), "headers"),
  insecure: option(toggle, "no checks", false),
};

const resolve = (given: Partial<Given>) => resolveConfig(options, { flags: {}, environment: {}, ...given });
const file = (text: string): Partial<Given> => ({ file: { path: "atlas.yaml", text } });

function issuesOf(work: () => unknown): readonly ConfigIssue[] {
  try {
    work();
  } catch (error) {
    if (error instanceof ConfigError) return error.issues;
    throw error;
  }
  throw new Error("it was accepted");
}
const complaints = (given: Partial<Given>): string[] =>
  issuesOf(() => resolve(given)).map(({ key, source, message }) => `${key} (${source}): ${message}`);

describe("names", () => {
  test("one key has one flag and one variable", () => {
    expect(flagOf("dynamodbCreateTable")).toBe("--dynamodb-create-table");
    expect(environmentNameOf("dynamodbCreateTable")).toBe("SMARTSTACK_DYNAMODB_CREATE_TABLE");
  });

  test("a near miss is suggested, a far one is not", () => {
    expect(suggest("dataDir", ["data-dir", "store"])).toBe(", did you mean data-dir?");
    expect(suggest("zzzzzz", ["data-dir", "store"])).toBe("");
    expect(suggest("x", [])).toBe("");
  });
});

describe("precedence", () => {
  test("is flag, then environment, then file, then default, each with its source", () => {
    const text = "store: cluster\nweight: 3\n\nport: 5\nzone: from-file\n";
    const { values, sources } = resolve({
      ...file(text),
      flags: { weight: "1" },
      environment: { SMARTSTACK_WEIGHT: "2", SMARTSTACK_PORT: "4" },
    });
    expect(values).toMatchObject({ weight: 1, port: 4, zone: "from-file", store: "cluster", insecure: false });
    expect(values.listen).toEqual({ host: "127.0.0.1", port: 7400 });
    expect(formatSource(sources.weight)).toBe("flag --weight");
    expect(formatSource(sources.port)).toBe("environment SMARTSTACK_PORT");
    expect(formatSource(sources.zone)).toBe("atlas.yaml:5");
    expect(formatSource(sources.listen)).toBe("default");
  });

  test("an empty variable is no value", () => {
    expect(resolve({ environment: { SMARTSTACK_WEIGHT: "" } }).values.weight).toBe(100);
  });

  test("an empty flag is a value, and a bad one", () => {
    expect(complaints({ flags: { zone: "" } })).toEqual(['zone (flag --zone): must not be empty, not ""']);
  });

  test("a bad value is told even when a better source would win over another bad one", () => {
    expect(complaints({ flags: { weight: "x" }, environment: { SMARTSTACK_WEIGHT: "5" } })).toEqual([
      'weight (flag --weight): must be a whole number from 0 to 256, not "x"',
    ]);
  });

  test("a file means what the same text means in a flag", () => {
    const text = "zone: 1.10\ndata-dir: 007\ntags: [1.10, yes]\ninsecure: yes\nweight: 12\nport: '80'\n";
    expect(resolve(file(text)).values).toMatchObject({
      zone: "1.10",
      dataDir: "007",
      tags: ["1.10", "yes"],
      insecure: true,
      weight: 12,
      port: 80,
    });
    expect(complaints(file("weight: 0x10\n"))).toEqual([
      'weight (atlas.yaml:1): must be a whole number from 0 to 256, not "0x10"',
    ]);
  });

  test("lists in a file are lists or text with commas", () => {
    expect(resolve(file("atlas: [http://a:1, http://b:2]\nheader:\n  - 'A: b'\n")).values).toMatchObject({
      atlas: ["http://a:1", "http://b:2"],
      header: ["A: b"],
    });
    expect(resolve(file("atlas: http://a:1,http://b:2\n")).values.atlas).toEqual(["http://a:1", "http://b:2"]);
  });
});

describe("an option that only its flag sets", () => {
  const options = { host: flagOnly(option(text("NAME"), "which host")) };

  test("is deaf to the environment, and no key of a file", () => {
    expect(resolveConfig(options, { flags: {}, environment: { SMARTSTACK_HOST: "a" } }).values.host).toBeUndefined();
    expect(resolveConfig(options, { flags: { host: "b" }, environment: {} }).values.host).toBe("b");
    const given = { flags: {}, environment: {}, file: { path: "x.yaml", text: "host: a" } };
    expect(() => resolveConfig(options, given)).toThrow("is not a key of this command");
  });
});

describe("bad values", () => {
  test("are all named at once, each with where it came from", () => {
    expect(
      complaints({
        ...file("# a comment\nstore: sqlite\nlisten: 7400\n"),
        flags: { weight: "-1" },
        environment: { SMARTSTACK_PORT: "http", SMARTSTACK_INSECURE: "maybe" },
      }),
    ).toEqual([
      'listen (atlas.yaml:3): must be HOST:PORT, for example 127.0.0.1:7400, not "7400"',
      'store (atlas.yaml:2): must be one of embedded, cluster, not "sqlite"',
      'weight (flag --weight): must be a whole number from 0 to 256, not "-1"',
      'port (environment SMARTSTACK_PORT): must be a port, 1 to 65535, not "http"',
      'insecure (environment SMARTSTACK_INSECURE): must be true or false, not "maybe"',
    ]);
  });

  test("unknown keys of a file are named beside bad values, with what was meant", () => {
    expect(complaints(file("lisen: 127.0.0.1:1\nweight: x\ncolour: red\n"))).toEqual([
      "lisen (atlas.yaml:1): is not a key of this command, did you mean listen?",
      "colour (atlas.yaml:3): is not a key of this command",
      'weight (atlas.yaml:2): must be a whole number from 0 to 256, not "x"',
    ]);
    expect(complaints(file("dataDir: /x\n"))).toEqual([
      "dataDir (atlas.yaml:1): is not a key of this command, did you mean data-dir?",
    ]);
  });

  test("a key without a value says how to get the default", () => {
    expect(complaints(file("weight:\nzone: null\n"))).toEqual([
      "weight (atlas.yaml:1): has no value; leave the line out to take the default",
      "zone (atlas.yaml:2): has no value; leave the line out to take the default",
    ]);
  });

  test("a list or a map where one value is wanted is refused", () => {
    expect(complaints(file("weight: [1]\nzone: {a: b}\nport: [[1], {a: 1}]\n"))).toEqual([
      "zone (atlas.yaml:2): must be one value or a list of values",
      "port (atlas.yaml:3): must be one value or a list of values",
      'weight (atlas.yaml:1): must be a whole number from 0 to 256, not ["1"]',
    ]);
  });

  test("a long value is shortened", () => {
    const [complaint = ""] = complaints({ flags: { weight: "9".repeat(5_000) } });
    expect(complaint.length).toBeLessThan(200);
  });

  test("the password of a URL is not repeated", () => {
    const [complaint = ""] = complaints({ flags: { atlas: "http://ann:hunter2@atlas:7400" } });
    expect(complaint).toContain("must be a URL of scheme, host and port alone");
    expect(complaint).not.toContain("hunter2");
  });
});

describe("a configuration file", () => {
  test("may be empty, or comments alone", () => {
    expect(resolve(file("")).values.weight).toBe(100);
    expect(resolve(file("# weight: 5\n---\n")).values.weight).toBe(100);
  });

  test("may have Windows' line ends and a byte order mark", () => {
    const directory = mkdtempSync(join(tmpdir(), "smartstack-config-"));
    try {
      const path = join(directory, "dos.yaml");
      writeFileSync(path, "\uFEFFweight: 5\r\nzone: a\r\n");
      expect(loadConfig(options, {}, path).values).toMatchObject({ weight: 5, zone: "a" });
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  test("that says a key twice is refused with the line", () => {
    expect(complaints(file("weight: 1\nzone: a\nweight: 2\n"))).toEqual([
      "config (atlas.yaml:3): Map keys must be unique",
    ]);
  });

  test("that is no map is refused", () => {
    for (const text of ["- weight\n", "weight\n", "5\n", "[]\n"])
      expect(complaints(file(text))).toEqual([
        "config (atlas.yaml:1): must hold keys and values, one a line, such as `log-level: debug`",
      ]);
  });

  test("that is no YAML is refused with the line", () => {
    const [complaint = ""] = complaints(file("weight: 1\nzone: [a\n"));
    expect(complaint).toStartWith("config (atlas.yaml:");
    expect(complaints(file("weight: 1\n---\nweight: 2\n"))).toHaveLength(1);
    expect(complaints(file("weight: !secret 1\n"))).toEqual(["config (atlas.yaml:1): Unresolved tag: !secret"]);
  });

  test("cannot grow by aliases", () => {
    const bomb = [
      "a: &a [x,x,x,x,x,x,x,x,x]",
      ..."bcdefgh".split("").map((name, index) => `${name}: &${name} [*${"abcdefg"[index]},*${"abcdefg"[index]}]`),
    ];
    expect(complaints(file(`${bomb.join("\n")}\nzone: *h\n`)).at(-1)).toBe(
      "zone (atlas.yaml:9): must be one value or a list of values",
    );
  });

  test("that nests without end is refused, not a crash", () => {
    expect(complaints(file(`zone: ${"[".repeat(20_000)}`)).length).toBeGreaterThan(0);
  });

  test("cannot reach what every object has", () => {
    expect(complaints(file("__proto__: 1\nconstructor: 2\ntoString: 3\n"))).toHaveLength(3);
  });
});

describe("files on disk", () => {
  let directory = "";
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "smartstack-config-"));
  });
  afterEach(() => {
    rmSync(directory, { recursive: true });
    delete process.env.SMARTSTACK_CONFIG;
  });
  const write = (content: string | Uint8Array): string => {
    const path = join(directory, "atlas.yaml");
    writeFileSync(path, content);
    return path;
  };
  const load = (configFlag?: string, flags = {}) => loadConfig(options, flags, configFlag);

  test("the flag names the file, else SMARTSTACK_CONFIG does", () => {
    const path = write("weight: 7\n");
    expect(load(path).values.weight).toBe(7);
    process.env.SMARTSTACK_CONFIG = path;
    expect(load().values.weight).toBe(7);
    process.env.SMARTSTACK_CONFIG = join(directory, "missing");
    expect(load(path).values.weight).toBe(7);
    expect(issuesOf(() => load())).toMatchObject([{ key: "config", source: "environment SMARTSTACK_CONFIG" }]);
  });

  test("a file that cannot be read is told beside every other bad value", () => {
    expect(issuesOf(() => load(join(directory, "missing.yaml"), { weight: "x" }))).toMatchObject([
      { key: "config", source: "flag --config", message: expect.stringContaining("ENOENT") },
      { key: "weight", source: "flag --weight" },
    ]);
  });

  test("a directory, binary data and a huge file are refused in a sentence", () => {
    mkdirSync(join(directory, "sub"));
    expect(issuesOf(() => load(join(directory, "sub")))[0]?.message).toContain("EISDIR");
    expect(issuesOf(() => load(write(new Uint8Array([0x77, 0xff, 0xfe]))))[0]?.message).toEndWith("is not UTF-8 text");
    expect(issuesOf(() => load(write(`zone: ${"x".repeat(1_100_000)}`)))[0]?.message).toEndWith("larger than 1 MiB");
    expect(issuesOf(() => load("/dev/zero"))[0]?.message).toEndWith("larger than 1 MiB");
  });

  test("the content of a file is never part of a message", () => {
    const path = write(new TextEncoder().encode("token-hunter2\u0000\n").subarray(0, 14));
    writeFileSync(path, Buffer.concat([Buffer.from("hunter2"), Buffer.from([0xff])]));
    expect(JSON.stringify(issuesOf(() => readText(path, "tokenFile", "flag --token-file")))).not.toContain("hunter2");
    expect(issuesOf(() => readText(path, "tokenFile", "flag --token-file"))[0]?.key).toBe("token-file");
  });
});
