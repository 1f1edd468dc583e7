import { expect, test } from "bun:test";
import { fakeClock } from "../core/lib/clock.ts";
import { Propagation } from "./propagation.ts";

test("the 99th percentile is of the last five minutes and the newest samples", async () => {
  const clock = fakeClock();
  const propagation = new Propagation(clock);
  expect(propagation.p99()).toBeUndefined();
  propagation.note(5_000);
  expect(propagation.p99()).toBe(5_000);
  await clock.advance(200_000);
  for (let count = 1; count <= 200; count += 1) propagation.note(count);
  expect(propagation.p99()).toBe(199);
  await clock.advance(100_001);
  expect(propagation.p99()).toBe(198);
  await clock.advance(200_000);
  expect(propagation.p99()).toBeUndefined();
  for (let count = 0; count < 9_000; count += 1) propagation.note(7);
  expect(propagation.p99()).toBe(7);
});
