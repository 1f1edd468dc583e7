import { expect, test } from "bun:test";
import { rollingPair } from "./window.ts";

const start = 1_700_000_000_000;

test("counts are forgotten slot by slot, no sooner than the window is long", () => {
  const window = rollingPair(1_000, 10);
  window.add(start, 1, 2);
  window.add(start + 500, 10, 20);
  expect([window.first(start + 500), window.second(start + 500)]).toEqual([11, 22]);
  expect(window.first(start + 1_000)).toBe(11);
  expect([window.first(start + 1_100), window.second(start + 1_100)]).toEqual([10, 20]);
  expect(window.first(start + 1_600)).toBe(0);
});

test("a long pause forgets all of it", () => {
  const window = rollingPair(1_000, 10);
  for (let ms = 0; ms < 1_000; ms += 50) window.add(start + ms, 1, 1);
  expect(window.first(start + 999)).toBe(20);
  expect(window.first(start + 1_000_000)).toBe(0);
  window.add(start + 1_000_000, 3, 0);
  expect([window.first(start + 1_000_000), window.second(start + 1_000_000)]).toEqual([3, 0]);
});
