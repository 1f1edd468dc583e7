import { formatAddress } from "../core/lib/address.ts";
import { describe, expect, test } from "bun:test";
import {
  duration,
  formatDefault,
  host,
  hostPort,
  integer,
  type Kind,
  list,
  oneOf,
  option,
  path,
  port,
  realm,
  text,
  texts,
  toggle,
  url,
  urls,
} from "./options.ts";

const read = <T>(kind: Kind<T>, raw: unknown): T => kind.schema.parse(raw);
const complaint = (kind: Kind<unknown>, raw: unknown): string | undefined =>
  kind.schema.safeParse(raw).error?.issues[0]?.message;

describe("a value", () => {
  test("text is one value that is not empty", () => {
    expect(read(text("NAME"), "a b")).toBe("a b");
    expect(read(path(), 5)).toBe("5");
    expect(complaint(text("NAME"), "")).toBe("must not be empty");
    expect(complaint(text("NAME"), ["a"])).toBe("must be one value");
    expect(complaint(text("NAME"), { a: 1 })).toBe("must be one value");
  });

  test("a number is whole and within its bounds, as text or as a number", () => {
    const kind = integer("N", -5, 10);
    expect(read(kind, "-5")).toBe(-5);
    expect(read(kind, 10)).toBe(10);
    for (const bad of ["", " 1", "1.5", "0x5", "1e1", "-6", 11, 1.5, Number.NaN, true, null, ["1"]])
      expect([bad, complaint(kind, bad)]).toEqual([bad, "must be a whole number from -5 to 10"]);
  });

  test("a port is 1 to 65535", () => {
    expect(read(port, "65535")).toBe(65_535);
    for (const bad of ["0", "65536", "http", "-1", ""])
      expect([bad, complaint(port, bad)]).toEqual([bad, "must be a port, 1 to 65535"]);
  });

  test("one of a few words is that word", () => {
    const kind = oneOf(["embedded", "cluster"]);
    expect(read(kind, "cluster")).toBe("cluster");
    expect(complaint(kind, "Cluster")).toBe("must be one of embedded, cluster");
    expect(complaint(kind, ["cluster"])).toBe("must be one of embedded, cluster");
  });

  test("a switch is what people write for yes and no", () => {
    for (const yes of [true, "true", "1", "yes", "on"]) expect([yes, read(toggle, yes)]).toEqual([yes, true]);
    for (const no of [false, "false", "0", "no", "off"]) expect([no, read(toggle, no)]).toEqual([no, false]);
    for (const bad of ["maybe", "2", 1, [], null])
      expect([bad, complaint(toggle, bad)]).toEqual([bad, "must be true or false"]);
  });

  test("a time is milliseconds unless it says otherwise", () => {
    const times = {
      "1500": 1_500,
      "1500ms": 1_500,
      "10s": 10_000,
      "1.5s": 1_500,
      "5m": 300_000,
      "1h": 3_600_000,
      "0": 0,
    };
    for (const [text, ms] of Object.entries(times)) expect([text, read(duration, text)]).toEqual([text, ms]);
    for (const bad of ["", "-1s", "10 s", "s", "1d", "Infinity", "1e3", ["10s"]])
      expect([bad, complaint(duration, bad)]).toEqual([bad, expect.stringMatching(/must be (a time|one value)/)]);
    // setTimeout fires at once for more than 2^31 ms
    expect(complaint(duration, "597h")).toBe("must be at most 596h");
    expect(complaint(duration, "9".repeat(400))).toBe("must be at most 596h");
  });

  test("an address to listen on is a host and a port, IPv6 in brackets", () => {
    expect(read(hostPort, "127.0.0.1:7400")).toEqual({ host: "127.0.0.1", port: 7400 });
    expect(read(hostPort, "[::1]:0")).toEqual({ host: "::1", port: 0 });
    expect(read(hostPort, "localhost:65535")).toEqual({ host: "localhost", port: 65_535 });
    for (const bad of [
      "",
      "7400",
      ":7400",
      "*:7400",
      "localhost",
      "localhost:",
      "localhost:65536",
      "::1:7400",
      "a b:1",
      "h:1:2",
    ])
      expect([bad, complaint(hostPort, bad)]).toEqual([bad, "must be HOST:PORT, for example 127.0.0.1:7400"]);
  });

  test("a list is values with commas between them, or a list of YAML", () => {
    expect(read(list("A,B"), "a, b,,c ")).toEqual(["a", "b", "c"]);
    expect(read(list("A,B"), ["a", "b"])).toEqual(["a", "b"]);
    expect(complaint(list("A,B"), ",")).toBe("must not be empty");
    expect(complaint(list("A,B"), [])).toBe("must not be empty");
    expect(complaint(list("A,B"), { a: 1 })).toBe("must be values with commas between them, or a list");
  });

  test("a repeatable value keeps its commas", () => {
    expect(read(texts("K: V"), "Accept: a, b")).toEqual(["Accept: a, b"]);
    expect(read(texts("K: V"), ["a", "b"])).toEqual(["a", "b"]);
  });

  test("a URL is http or https, with host and port alone", () => {
    expect(read(url, "https://atlas.example.com:7400")).toBe("https://atlas.example.com:7400");
    expect(read(urls, "http://a:1,http://[::1]:2/")).toEqual(["http://a:1", "http://[::1]:2/"]);
    for (const bad of ["", "127.0.0.1:7400", "ftp://a", "http://", "file:///etc/passwd", 5])
      expect([bad, complaint(url, bad)]).toEqual([bad, expect.any(String)]);
    for (const bad of ["http://a/path", "http://a?x=1", "http://a#x", "http://user:secret@a"])
      expect([bad, complaint(url, bad)]).toEqual([bad, "must be a URL of scheme, host and port alone"]);
  });

  test("hosts and realms are the model's", () => {
    expect(read(host, "host001.runscope.com")).toBe("host001.runscope.com");
    expect(complaint(host, "host 1")).toContain("DNS name");
    expect(read(realm, "prod")).toBe("prod");
    expect(complaint(realm, "Prod")).toContain("realm");
  });
});

test("the example of every kind is a value it takes, for the commented configuration files", () => {
  const kinds: Record<string, Kind<unknown>> = {
    integer: integer("N", 3, 9),
    port,
    oneOf: oneOf(["a", "b"]),
    duration,
    hostPort,
    url,
    urls,
    host,
    realm,
    path: path(),
    text: text("NAME"),
    list: list("A,B"),
    texts: texts("T"),
  };
  for (const [name, kind] of Object.entries(kinds))
    expect([name, kind.schema.safeParse(kind.example ?? kind.placeholder).success]).toEqual([name, true]);
});

test("what is shown as a default can be typed as a flag", () => {
  expect(formatAddress({ host: "::1", port: 1 })).toBe("[::1]:1");
  const listen = { host: "::1", port: 1 };
  expect(read(hostPort, formatDefault(option(hostPort, "", listen)))).toEqual(listen);
  const addresses = ["http://a:1", "http://b:1"];
  expect(read(urls, formatDefault(option(urls, "", addresses)))).toEqual(addresses);
  const times = { 0: "0ms", 1: "1ms", 1_500: "1500ms", 10_000: "10s", 90_000: "90s", 300_000: "5m", 7_200_000: "2h" };
  for (const [ms, shown] of Object.entries(times)) {
    expect(formatDefault(option(duration, "", Number(ms)))).toBe(shown);
    expect(read(duration, shown)).toBe(Number(ms));
  }
});

test("a default that says nothing is not shown", () => {
  expect(formatDefault(option(toggle, "", false))).toBeUndefined();
  expect(formatDefault(option(text("X"), ""))).toBeUndefined();
  expect(formatDefault(option(text("X"), "", ""))).toBeUndefined();
  expect(formatDefault(option(texts("X"), "", []))).toBeUndefined();
});
