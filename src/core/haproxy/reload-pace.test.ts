import { expect, test } from "bun:test";
import { reloadWaitMs } from "./reload-pace.ts";

test("the first reload is at once, later ones are spaced, and rare while old workers pile up", () => {
  expect(reloadWaitMs(Number.NEGATIVE_INFINITY, 0, 1_000)).toBe(0);
  expect(reloadWaitMs(1_000, 3, 1_500)).toBe(1_500);
  expect(reloadWaitMs(1_000, 3, 3_000)).toBe(0);
  expect(reloadWaitMs(1_000, 4, 3_000)).toBe(28_000);
  expect(reloadWaitMs(1_000, 9, 31_000)).toBe(0);
});
