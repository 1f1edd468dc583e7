import { expect, test } from "bun:test";
import {
  hostName,
  instanceName,
  instanceNameSchema,
  label,
  parseInstanceName,
  serviceName,
  isLoopback,
} from "./names.ts";

const accepts = (schema: { safeParse(value: unknown): { success: boolean } }, value: unknown): boolean =>
  schema.safeParse(value).success;

test("a service name is narrow enough for a host label, a znode, a file and a backend", () => {
  for (const good of ["a", "identity", "mission-control", "a1", `a${"b".repeat(62)}`])
    expect([good, accepts(serviceName, good)]).toEqual([good, true]);
  for (const bad of ["", "A", "1a", "-a", "a_b", "a.b", "a/b", "a\n", "ä", `a${"b".repeat(63)}`, 5])
    expect([bad, accepts(serviceName, bad)]).toEqual([bad, false]);
});

test("a service is not named as something that every object has", () => {
  expect(accepts(serviceName, "constructor")).toBe(false);
});

test("a host is a DNS name or an IP address", () => {
  for (const good of ["host001", "host001.runscope.com", "a_b", "10.0.0.1", "::1", "::ffff:1.2.3.4", "123456789012"])
    expect([good, accepts(hostName, good)]).toEqual([good, true]);
  for (const bad of ["", "a b", "a..b", ".a", "a.", "-a", "a-", "a/b", "host\n", "a:1", "[::1]", `${"a".repeat(64)}.b`])
    expect([bad, accepts(hostName, bad)]).toEqual([bad, false]);
});

test("a mistyped IP address is no DNS name", () => {
  for (const bad of ["999.1.1.1", "1.2.3", "10.0.0.1.5"]) expect([bad, accepts(hostName, bad)]).toEqual([bad, false]);
});

test("an IPv6 scope means something on one machine only and is refused", () => {
  expect(accepts(hostName, "fe80::1%eth0")).toBe(false);
});

test("an instance is a host, or a host and a port, IPv6 in brackets", () => {
  expect(parseInstanceName("host001")).toEqual({ host: "host001" });
  expect(parseInstanceName("host001.runscope.com:5000")).toEqual({ host: "host001.runscope.com", port: 5000 });
  expect(parseInstanceName("10.0.0.1:65535")).toEqual({ host: "10.0.0.1", port: 65_535 });
  expect(parseInstanceName("[::1]:5000")).toEqual({ host: "::1", port: 5000 });
  expect(parseInstanceName("::1")).toEqual({ host: "::1" });
  for (const bad of [
    "",
    ":5000",
    "a:",
    "a:0",
    "a:05",
    "a:65536",
    "a:5000:1",
    "a:x",
    "[a b]:5",
    "[::1]",
    "a/b",
    "a:5\n",
  ])
    expect([bad, parseInstanceName(bad)]).toEqual([bad, undefined]);
});

test("the name that serve makes is read back as the same host and port", () => {
  for (const host of ["host001", "10.0.0.1", "::1", "2001:db8::1"]) {
    const name = instanceName(host, 5004);
    expect(parseInstanceName(name)).toEqual({ host, port: 5004 });
    expect(instanceNameSchema.parse(name)).toBe(name);
  }
});

test("a label cannot break out of a line of HAProxy's configuration", () => {
  for (const good of ["", "eu-west/1a", "1.2.3+build:5"]) expect(accepts(label, good)).toBe(true);
  for (const bad of ["a b", 'a"', "a\n", "a#b", "$HOME", "a".repeat(101)]) expect(accepts(label, bad)).toBe(false);
});

test("loopback is more than one name", () => {
  expect(["localhost", "127.0.0.1", "127.8.8.8", "::1"].every(isLoopback)).toBe(true);
  expect(["10.0.0.1", "localhost.example.com", "127.0.0.1.example.com"].some(isLoopback)).toBe(false);
});
