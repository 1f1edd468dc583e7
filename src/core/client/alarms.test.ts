import { expect, test } from "bun:test";
import { fakeClock } from "../lib/clock.ts";
import { alarms } from "./alarms.ts";

test("each alarm rings at its time, whatever the order they were set in", async () => {
  const clock = fakeClock(0);
  const set = alarms(clock);
  const rang: [number, number][] = [];
  for (const at of [300, 100, 200, 100, Number.POSITIVE_INFINITY])
    set.add({ at, ring: () => rang.push([at, clock.now()]) });
  expect(clock.pending).toBe(1);
  await clock.advance(1_000);
  expect(rang).toEqual([
    [100, 100],
    [100, 100],
    [200, 200],
    [300, 300],
  ]);
});

test("one that was removed never rings, and without alarms no timer is left", async () => {
  const clock = fakeClock(0);
  const set = alarms(clock);
  const rang: string[] = [];
  const early = { at: 100, ring: () => rang.push("early") };
  const late = { at: 200, ring: () => rang.push("late") };
  set.add(early);
  set.add(late);
  set.remove(early);
  await clock.advance(150);
  expect(rang).toEqual([]);
  set.remove(late);
  expect(clock.pending).toBe(0);
});

test("an alarm may set another while it rings", async () => {
  const clock = fakeClock(0);
  const set = alarms(clock);
  const rang: number[] = [];
  const ring = (): void => {
    rang.push(clock.now());
    if (rang.length < 3) set.add({ at: clock.now() + 50, ring });
  };
  set.add({ at: 50, ring });
  set.add({ at: 500, ring: () => rang.push(-1) });
  await clock.advance(200);
  expect(rang).toEqual([50, 100, 150]);
});
