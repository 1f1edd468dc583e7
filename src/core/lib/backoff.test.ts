import { expect, test } from "bun:test";
import { fullJitter } from "./backoff.ts";

test("the bound doubles with every attempt up to the cap, and the wait is uniform below it", () => {
  const options = { baseMs: 50, capMs: 1_000 };
  const bounds = [50, 100, 200, 400, 800, 1_000, 1_000];
  for (const [attempt, bound] of bounds.entries()) {
    expect(fullJitter(attempt, { ...options, random: () => 0 })).toBe(0);
    expect(fullJitter(attempt, { ...options, random: () => 0.5 })).toBe(bound / 2);
    expect(fullJitter(attempt, { ...options, random: () => 1 - 2 ** -53 })).toBeLessThan(bound);
  }
});

test("any number of attempts gives a finite wait", () => {
  for (const attempt of [31, 1_023, 1_024, 1e9])
    expect(fullJitter(attempt, { baseMs: 1, capMs: 5_000 })).toBeLessThan(5_000);
});

test("a crowd that failed together does not come back together", () => {
  const waits = new Set(Array.from({ length: 100 }, () => fullJitter(5, { baseMs: 50, capMs: 1_000 })));
  expect(waits.size).toBeGreaterThan(90);
});
