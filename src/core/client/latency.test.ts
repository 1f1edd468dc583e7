import { expect, test } from "bun:test";
import { latency } from "./latency.ts";

test("quantiles are those of the answers, by nearest rank", () => {
  const seen = latency();
  for (let ms = 100; ms >= 1; ms -= 1) seen.add(ms);
  expect([0, 0.5, 0.95, 0.99, 1].map((share) => seen.quantile(share))).toEqual([1, 50, 95, 99, 100]);
});

test("before the first answer there are none, and old answers make way for new ones", () => {
  const seen = latency(4);
  expect([seen.count, seen.quantile(0.95)]).toEqual([0, undefined]);
  for (const ms of [900, 900, 1, 2, 3, 4]) seen.add(ms);
  expect([seen.count, seen.quantile(1)]).toEqual([4, 4]);
});
