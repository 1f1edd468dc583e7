import { expect, test } from "bun:test";
import { type Clock, fakeClock } from "./clock.ts";
import { coalesce } from "./coalesce.ts";

test("the first request runs at once, those within the interval together when it ends", async () => {
  const clock = fakeClock(0);
  const ran: number[] = [];
  const coalesced = coalesce(clock, 20, () => ran.push(clock.now()));
  coalesced.request();
  expect(ran).toEqual([0]);
  await clock.advance(5);
  coalesced.request();
  coalesced.request();
  await clock.advance(14);
  expect(ran).toEqual([0]);
  await clock.advance(1);
  expect(ran).toEqual([0, 20]);
  await clock.advance(100);
  expect(ran).toEqual([0, 20]);
  coalesced.request();
  expect(ran).toEqual([0, 20, 120]);
});

test("a request made while it runs is not lost", async () => {
  const clock = fakeClock(0);
  const ran: number[] = [];
  const coalesced = coalesce(clock, 10, () => {
    ran.push(clock.now());
    if (ran.length < 3) coalesced.request();
  });
  coalesced.request();
  await clock.advance(100);
  expect(ran).toEqual([0, 10, 20]);
});

test("stop drops the pending run and leaves no timer", async () => {
  const clock = fakeClock(0);
  let runs = 0;
  const coalesced = coalesce(clock, 10, () => (runs += 1));
  coalesced.request();
  coalesced.request();
  coalesced.stop();
  expect(clock.pending).toBe(0);
  await clock.advance(100);
  expect(runs).toBe(1);
});

test("the interval may change from run to run", async () => {
  const clock = fakeClock(0);
  const ran: number[] = [];
  let interval = 2;
  const coalesced = coalesce(
    clock,
    () => interval,
    () => ran.push(clock.now()),
  );
  coalesced.request();
  interval = 30;
  coalesced.request();
  await clock.advance(29);
  expect(ran).toEqual([0]);
  await clock.advance(1);
  expect(ran).toEqual([0, 30]);
});

test("a clock that is set back by an hour delays nothing by an hour", async () => {
  const fake = fakeClock();
  let offset = 0;
  const clock: Clock = { ...fake, now: () => fake.now() + offset };
  let runs = 0;
  const coalesced = coalesce(clock, 20, () => (runs += 1));
  coalesced.request();
  offset = -3_600_000;
  coalesced.request();
  await fake.advance(20);
  expect(runs).toBe(2);
});
