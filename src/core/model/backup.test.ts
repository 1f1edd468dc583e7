import { describe, expect, test } from "bun:test";
import { BackupReader } from "./backup.ts";

const header = {
  kind: "header",
  format: 1,
  realm: "prod",
  generation: 7,
  revision: 12,
  at: "2026-11-24T04:14:45.123Z",
  version: "0.1.0",
};
const definition = { kind: "definition", service: "identity", definition: { owner: "core" } };
const instance = {
  kind: "instance",
  service: "identity",
  instance: "host001:5004",
  port: 5004,
  address: "10.0.0.1",
  enabled: true,
  weight: 100,
  zone: "",
  version: "1.2",
  agent: null,
  healthy: null,
  draining: false,
};
const intent = { kind: "intent", service: "identity", instance: "host002", enabled: false };
const port = { kind: "port", service: "identity", port: 5004 };
const settings = {
  kind: "settings",
  service: "identity",
  at: "2026-11-24T04:14:45.123Z",
  who: "ann",
  values: { A: 1 },
};
const entry = {
  at: "2026-11-24T04:14:45.123Z",
  who: "ann",
  from: "::1",
  kind: "x",
  target: "y",
  before: null,
  after: 1,
};

/** Reads these lines, with an end that counts them. */
function read(...lines: readonly unknown[]) {
  return readExactly(...lines, { kind: "end", lines: lines.length + 1 });
}

function readExactly(...lines: readonly unknown[]) {
  const reader = new BackupReader();
  for (const [index, line] of lines.entries()) reader.add(index + 1, line);
  const backup = reader.finish();
  return { backup, issues: reader.issues.map(({ line, message }) => `${line}: ${message}`) };
}

describe("a backup", () => {
  test("is read as a whole, in any order of kinds", () => {
    const old = { ...settings, values: {} };
    const lines = [
      header,
      instance,
      intent,
      port,
      old,
      { ...settings, current: true },
      { kind: "audit", entry },
      definition,
    ];
    const { backup, issues } = read(...lines);
    expect(issues).toEqual([]);
    expect(backup?.header.realm).toBe("prod");
    expect(backup?.definitions.get("identity")?.definition).toMatchObject({ owner: "core", retries: 3 });
    expect([...(backup?.instances ?? [])]).toEqual([
      [
        "identity/host001:5004",
        expect.objectContaining({ host: "host001", address: "10.0.0.1", enabled: true, agent: null }),
      ],
    ]);
    expect(backup?.away).toEqual(new Set(["identity/host002"]));
    expect(backup?.ports).toEqual(new Map([["identity", 5004]]));
    expect(backup?.settings.get("identity")?.map(({ values }) => values)).toEqual([{}, { A: 1 }]);
    expect(backup?.audit).toEqual([entry]);
  });

  test("that is cut, empty or longer than it says is none", () => {
    expect(readExactly().issues).toEqual(["0: it is empty"]);
    expect(readExactly(header, definition)).toEqual({
      backup: undefined,
      issues: ["0: it breaks off after 2 lines: the end is missing"],
    });
    expect(readExactly(header, { kind: "end", lines: 3 }).issues).toEqual([
      "2: says that there are 3 lines, and there are 2",
    ]);
    expect(readExactly(header, { kind: "end", lines: 2 }, definition).issues).toEqual(["3: stands behind the end"]);
    expect(read(definition).issues[0]).toStartWith("1: is no header");
  });

  test("of a later form says so", () => {
    expect(read({ ...header, format: 2, more: true }).issues).toEqual([
      "1: format: is another form of backup than 1, the one this program knows",
    ]);
  });

  test("names every bad line", () => {
    const { issues } = read(
      header,
      definition,
      { ...instance, port: 0, colour: "red" },
      { ...instance, instance: "a b" },
      { kind: "song" },
      "text",
      { ...port, service: "Identity" },
      { ...settings, values: { "a b": 1 }, current: true },
    );
    expect(issues).toEqual([
      expect.stringMatching(/^3: port: .*; unknown: colour$/),
      expect.stringMatching(/^4: instance: an instance is HOST or HOST:PORT/),
      expect.stringMatching(/^5: is of no kind that this program knows/),
      expect.stringMatching(/^6: is of no kind that this program knows/),
      expect.stringMatching(/^7: service: a service name is/),
      expect.stringMatching(/^8: values\.a b: /),
    ]);
  });

  test("contradicts itself nowhere", () => {
    const current = { ...settings, current: true };
    const { issues } = read(
      header,
      definition,
      definition,
      instance,
      instance,
      { ...intent, instance: instance.instance },
      port,
      port,
      { ...port, service: "billing" },
      current,
      settings,
      { ...settings, service: "billing" },
      { ...instance, service: "billing" },
    );
    expect(issues).toEqual([
      "3: defines identity again",
      "5: tells of identity/host001:5004 again",
      "6: tells of identity/host001:5004 again",
      "8: reserves a port for identity again",
      "9: port 5004 is identity's already",
      "11: settings of identity behind the current ones",
      "13: an instance of billing, which has no definition here",
      "0: none of the settings of billing is the current one",
    ]);
  });
});
