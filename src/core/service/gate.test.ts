import { expect, test } from "bun:test";
import { fakeClock } from "../lib/clock.ts";
import { Gate } from "./gate.ts";

test("so many go in at once, the next waits until one leaves", async () => {
  const gate = new Gate(fakeClock(), { maxInFlight: 2 });
  expect([gate.tryEnter(), gate.tryEnter(), gate.tryEnter()]).toEqual([true, true, false]);
  const waiting = gate.enter();
  expect([gate.inFlight, gate.queued]).toEqual([2, 1]);
  gate.leave();
  expect(await waiting).toBe(true);
  expect([gate.inFlight, gate.queued]).toEqual([2, 0]);
  gate.leave();
  gate.leave();
  expect(gate.inFlight).toBe(0);
});

test("who waits too long, longer than his own patience, or behind a full queue is sent away", async () => {
  const clock = fakeClock();
  const gate = new Gate(clock, { maxInFlight: 1, maxQueued: 2, queueMs: 250 });
  expect(gate.tryEnter()).toBe(true);
  const [patient, hasty] = [gate.enter(), gate.enter(100)];
  expect(await gate.enter()).toBe(false);
  await clock.advance(100);
  expect(await hasty).toBe(false);
  await clock.advance(150);
  expect(await patient).toBe(false);
  // whoever went away must not take the place of the next one
  gate.leave();
  expect([gate.inFlight, gate.queued, clock.pending]).toEqual([0, 0, 0]);
  expect(gate.tryEnter()).toBe(true);
});
