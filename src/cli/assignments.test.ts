import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fieldsOf, parseAssignments, readings, readMapFile, withValue } from "./assignments.ts";

test("a value may hold equals signs and lines, a key may not be empty", () => {
  expect(parseAssignments(["a.b=c=d\ne", "x="])).toEqual([
    { key: "a.b", path: ["a", "b"], text: "c=d\ne" },
    { key: "x", path: ["x"], text: "" },
  ]);
  for (const bad of ["a", "=b", ""]) expect(() => parseAssignments([bad])).toThrow("is no KEY=VALUE");
});

test("a value is JSON when it is, and text that would change as a number stays text", () => {
  const first = Object.fromEntries(
    ["2", "1.10", "007", "1e3", "true", "null", '"2"', '["a"]', "redis-1", "", "{"].map((text) => [
      text,
      readings(text)[0],
    ]),
  );
  expect(first).toEqual({
    "2": 2,
    "1.10": "1.10",
    "007": "007",
    "1e3": "1e3",
    true: true,
    null: null,
    '"2"': "2",
    '["a"]': ["a"],
    "redis-1": "redis-1",
    "": "",
    "{": "{",
  });
});

test("putting a value changes a copy, inside as well", () => {
  const before = { a: { b: 1, c: 2 }, d: 3 };
  expect(withValue(before, ["a", "b"], 9)).toEqual({ a: { b: 9, c: 2 }, d: 3 });
  expect(withValue(before, ["a", "b"], undefined)).toEqual({ a: { c: 2 }, d: 3 });
  expect(withValue(before, ["d", "e"], 1)).toEqual({ a: { b: 1, c: 2 }, d: { e: 1 } });
  expect(before).toEqual({ a: { b: 1, c: 2 }, d: 3 });
});

test("what every object has cannot be reached by a key", () => {
  const made = withValue({}, ["__proto__", "polluted"], 1);
  expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
  expect(Object.keys(withValue({}, ["constructor", "x"], 1))).toEqual(["constructor"]);
  expect(made).toEqual(made);
});

test("fields are the dotted keys of a map", () => {
  expect(fieldsOf({ a: { b: 1, c: { d: "x" } }, e: [1], f: null })).toEqual([
    ["a.b", "1"],
    ["a.c.d", "x"],
    ["e", "[1]"],
    ["f", "null"],
  ]);
});

test("a file of YAML or JSON must hold a map, and aliases are not followed", () => {
  const directory = mkdtempSync(join(tmpdir(), "smartstack-map-"));
  const file = join(directory, "f");
  const read = (text: string): unknown => {
    writeFileSync(file, text);
    return readMapFile(file, "flag --file");
  };
  try {
    expect(read('{"a": {"b": 1}}')).toEqual({ a: { b: 1 } });
    expect(read("a:\n  b: 1\n")).toEqual({ a: { b: 1 } });
    for (const bad of ["", "[]", "5", "a: [", "a: !x 1", "a: &a [1]\nb: *a\n"])
      expect(() => read(bad), bad).toThrow(/file \(flag --file\): /);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
