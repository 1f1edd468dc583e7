import { expect, test } from "bun:test";
import { type Health, observe, unchecked } from "./health.ts";

const limits = { rise: 2, fall: 3 };
/** `+` passes, `-` fails; one check every `everyMs`. */
function after(checks: string, everyMs = 1_000, from: Health = unchecked, start = 0): Health {
  return checks
    .split("")
    .reduce((health, check, index) => observe(health, check === "+", limits, start + index * everyMs), from);
}

test("a new instance believes its first check", () => {
  expect(unchecked.healthy).toBeNull();
  expect(after("+").healthy).toBe(true);
  expect(after("-").healthy).toBe(false);
});

test("the first pass of a new instance is enough, however often it failed before", () => {
  expect(after("----+").healthy).toBe(true);
});

test("fall failures in a row make it unhealthy, a pass in between starts the count again", () => {
  expect(after("+--").healthy).toBe(true);
  expect(after("+--+--").healthy).toBe(true);
  expect(after("+---").healthy).toBe(false);
});

test("rise passes in a row make it healthy again", () => {
  expect(after("+---+").healthy).toBe(false);
  expect(after("+---+-+").healthy).toBe(false);
  expect(after("+---++").healthy).toBe(true);
});

test("each further fall within five minutes doubles the passes it takes, but never the failures", () => {
  expect(after("+---++---++").healthy).toBe(false);
  expect(after("+---++---++++").healthy).toBe(true);
  expect(after("+---++---++++---").healthy).toBe(false);
  expect(after("+---++---++++---+++++++").healthy).toBe(false);
  expect(after("+---++---++++---++++++++").healthy).toBe(true);
});

test("falls of long ago are forgiven", () => {
  const fallen = after("+---++---++++");
  expect(after("---++", 1_000, fallen, 400_000).healthy).toBe(true);
});
