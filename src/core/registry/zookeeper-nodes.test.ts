import { describe, expect, test } from "bun:test";
import { registrationFromPut } from "../model/instance.ts";
import {
  readEnabled,
  type Reading,
  readLease,
  readMeta,
  readNumber,
  readPort,
  readReason,
  registrationOf,
  writeLease,
  writeMeta,
} from "./zookeeper-nodes.ts";

const valueOf = <T>(reading: Reading<T>): T | string => (reading.ok ? reading.value : `! ${reading.problem}`);

describe("the text of a znode", () => {
  test.each([
    ["5000", 5000],
    [" 5000\n", 5000],
    ["", undefined],
    ["  ", undefined],
    ["0", '! is "0", not a port from 1 to 65535'],
    ["65536", '! is "65536", not a port from 1 to 65535'],
    ["0x50", '! is "0x50", not a port from 1 to 65535'],
    ["5e3", '! is "5e3", not a port from 1 to 65535'],
    ["x".repeat(100_000), `! is "${"x".repeat(40)}…", not a port from 1 to 65535`],
  ])("%j as a port", (text, port) => expect(valueOf(readPort(text))).toBe(port as never));

  test.each([
    ["True", true],
    ["yes", true],
    ["", true],
    ["FALSE", false],
    ["0", false],
    ["off", false],
    ["fasle", '! is "fasle", neither True nor False'],
  ])("%j as enabled", (text, enabled) => expect(valueOf(readEnabled(text))).toBe(enabled));

  test.each([
    ["1", 1],
    ["999999999999999", 999_999_999_999_999],
    ["0", '! is "0", not a number'],
    ["1.5", '! is "1.5", not a number'],
    ["9999999999999999", '! is "9999999999999999", not a number'],
  ])("%j as a number", (text, number) => expect(valueOf(readNumber(text))).toBe(number));

  test("a reason is one that the API knows", () => {
    expect(valueOf(readReason("expired\n"))).toBe("expired");
    expect(valueOf(readReason("tired"))).toContain("neither deregistered nor expired");
  });

  test("what meta leaves out has the default, what it says too much is ignored, one wrong field spoils it whole", () => {
    expect(valueOf(readMeta(""))).toEqual({});
    expect(valueOf(readMeta('{"weight": 0, "comment": "mine"}'))).toEqual({ weight: 0 });
    expect(valueOf(readMeta('{"weight": 5, "draining": "no"}'))).toBe(
      "! is wrong: draining must be true or false, not text",
    );
    expect(valueOf(readMeta("7"))).toBe("! is wrong: it must be keys and values, not a number");
    // it stands unquoted in HAProxy's files
    expect(valueOf(readMeta(String.raw`{"zone": "a\nserver evil 1.2.3.4"}`))).toStartWith("! is wrong: zone");
  });

  test("a registration survives being written and read", () => {
    const registration = registrationFromPut("web", "host001:5000", {
      port: 5001,
      address: "10.0.0.1",
      weight: 0,
      zone: "a",
      version: "1.2",
      agent: "host001",
      healthy: false,
      draining: true,
    });
    const meta = readMeta(writeMeta(registration));
    expect(meta.ok && registrationOf("web", "host001:5000", 5001, meta.value)).toEqual(registration);
    const lease = { host: "a", boot: "1", zone: "z", version: "v", replica: "r" };
    expect(valueOf(readLease("a", writeLease(lease)))).toEqual(lease);
    expect(valueOf(readLease("a", '{"boot": "1"}'))).toBe("! is wrong: zone is missing; it must be text");
  });
});
