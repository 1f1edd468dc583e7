import { expect, test } from "bun:test";
import { registrationFromPut } from "../core/model/instance.ts";
import { definitionSchema } from "../core/model/service.ts";
import { emptySnapshot } from "../core/model/snapshot.ts";
import { formatAudit, formatChange } from "./audit.ts";
import { describeDelta } from "./watch.ts";

const instance = (name: string, weight = 100) => ({
  ...registrationFromPut("identity", name, { port: 5004, weight }),
  enabled: true,
});

test("every change of a delta is one line that says what changed", () => {
  const before = {
    ...emptySnapshot("local"),
    services: { identity: definitionSchema.parse({}), ads: definitionSchema.parse({}) },
    instances: [instance("a"), instance("b"), instance("c")],
  };
  const lines = describeDelta(before, {
    generation: 1,
    since: 0,
    revision: 5,
    services: {
      put: { identity: definitionSchema.parse({ retries: 5 }), billing: definitionSchema.parse({}) },
      delete: ["ads"],
    },
    instances: {
      put: [{ ...instance("a"), enabled: false }, instance("d")],
      delete: [{ id: "identity/b", reason: "expired" }, { id: "identity/c" }],
    },
  });
  expect(lines).toEqual([
    "5  identity  retries 3 → 5",
    "5  billing  defined",
    "5  ads  removed",
    "5  identity/a  enabled true → false",
    "5  identity/d  registered at d:5004",
    "5  identity/b  removed, expired",
    "5  identity/c  removed, nobody said why",
  ]);
});

test("a change names fields that differ, missing and empty ones too", () => {
  expect(formatChange({ a: 1, b: { c: "" } }, { a: 1, b: { c: "x" }, d: true })).toBe('b.c "" → x, d – → true');
  expect(formatChange(null, { a: 1 })).toBe("");
  expect(formatChange("text", 5)).toBe("");
});

test("the audit trail is a table, newest first as it comes", () => {
  const entry = {
    at: "2026-01-02T12:00:00.123Z",
    who: "ann",
    from: "10.0.0.9",
    kind: "instance.patch",
    target: "identity/a",
    reason: "new disk",
    before: { enabled: true },
    after: { enabled: false },
  };
  expect(formatAudit([entry]).split("\n")).toEqual([
    "AT                     WHO   FROM       WHAT             TARGET       REASON     CHANGE",
    "2026-01-02 12:00:00Z   ann   10.0.0.9   instance.patch   identity/a   new disk   enabled true → false",
  ]);
  expect(formatAudit([])).toBe("nothing was changed yet");
});
