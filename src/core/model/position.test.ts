import { expect, test } from "bun:test";
import { comparePositions, formatPosition, parsePosition } from "./position.ts";

test("a position survives its text form", () => {
  for (const position of [
    { generation: 0, revision: 0 },
    { generation: 1_700_000_000, revision: 48_213 },
    // a zxid of ZooKeeper: epoch in the upper half
    { generation: 1_700_000_000, revision: Number.MAX_SAFE_INTEGER },
  ])
    expect(parsePosition(formatPosition(position))).toEqual(position);
});

test("a malformed position is undefined, never an error and never a wrong number", () => {
  for (const bad of [
    "",
    "1",
    "1.",
    ".1",
    "1.2.3",
    "a.b",
    "-1.2",
    "1.-2",
    "1.2 ",
    " 1.2",
    "1e3.2",
    "1.9007199254740993",
  ])
    expect([bad, parsePosition(bad)]).toEqual([bad, undefined]);
});

test("a generation counts before a revision", () => {
  const old = { generation: 1, revision: 900 };
  const young = { generation: 2, revision: 1 };
  expect(comparePositions(old, young)).toBeLessThan(0);
  expect(comparePositions(young, old)).toBeGreaterThan(0);
  expect(comparePositions({ generation: 2, revision: 2 }, young)).toBeGreaterThan(0);
  expect(comparePositions(young, young)).toBe(0);
});
