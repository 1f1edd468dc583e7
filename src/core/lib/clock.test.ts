import { expect, spyOn, test } from "bun:test";
import { type Clock, fakeClock, steadyClock, systemClock } from "./clock.ts";

test("a fake clock runs timers when they come due, in order of time and then of request", async () => {
  const clock = fakeClock(1_000);
  const ran: string[] = [];
  clock.after(20, () => ran.push(`c at ${clock.now()}`));
  clock.after(10, () => ran.push(`a at ${clock.now()}`));
  clock.after(10, () => ran.push(`b at ${clock.now()}`));
  clock.after(21, () => ran.push("too late"));
  await clock.advance(20);
  expect(ran).toEqual(["a at 1010", "b at 1010", "c at 1020"]);
  expect(clock.now()).toBe(1_020);
  expect(clock.pending).toBe(1);
});

test("a timer that a timer starts runs in the same advance when it comes due", async () => {
  const clock = fakeClock(0);
  const at: number[] = [];
  const again = (): void => {
    at.push(clock.now());
    clock.after(10, again);
  };
  clock.after(10, again);
  await clock.advance(35);
  expect(at).toEqual([10, 20, 30]);
});

test("a fake clock lets chains of promises settle before the next timer", async () => {
  const clock = fakeClock(0);
  const ran: string[] = [];
  const chain = async (): Promise<void> => {
    await clock.sleep(10);
    for (let step = 0; step < 50; step += 1) await Promise.resolve();
    ran.push("chain");
  };
  const done = chain();
  clock.after(11, () => ran.push("timer"));
  await clock.advance(11);
  await done;
  expect(ran).toEqual(["chain", "timer"]);
});

test("a cancelled timer never runs, and cancelling late is harmless", async () => {
  const clock = fakeClock(0);
  let runs = 0;
  const cancel = clock.after(5, () => (runs += 1));
  const late = clock.after(6, () => (runs += 1));
  cancel();
  await clock.advance(10);
  late();
  expect(runs).toBe(1);
  expect(clock.pending).toBe(0);
});

test("the steady clock tells the time of day, and does not jump when somebody sets it", () => {
  const before = steadyClock.now();
  expect(Math.abs(before - Date.now())).toBeLessThan(5_000);
  const set = spyOn(Date, "now").mockReturnValue(before - 3_600_000);
  try {
    expect(systemClock.now()).toBe(before - 3_600_000);
    expect(steadyClock.now()).toBeGreaterThanOrEqual(before);
  } finally {
    set.mockRestore();
  }
});

const both: readonly [string, Clock][] = [
  ["the system's clock", systemClock],
  ["a fake clock", fakeClock()],
];
for (const [name, clock] of both) {
  test(`${name}: sleep ends with the reason of its signal, before and after it began, and leaves no listener`, async () => {
    const reason = new Error("enough");
    const aborted = clock.sleep(60_000, AbortSignal.abort(reason));
    expect(aborted).rejects.toBe(reason);
    const controller = new AbortController();
    const listeners = countListeners(controller.signal);
    const sleeping = clock.sleep(60_000, controller.signal);
    expect(listeners()).toBe(1);
    controller.abort(reason);
    expect(sleeping).rejects.toBe(reason);
    await Promise.allSettled([aborted, sleeping]);
  });
}

test("a sleep that ended leaves no listener on a long-lived signal", async () => {
  const clock = fakeClock();
  const { signal } = new AbortController();
  const listeners = countListeners(signal);
  const sleeping = clock.sleep(10, signal);
  await clock.advance(10);
  await sleeping;
  expect(listeners()).toBe(0);
});

function countListeners(signal: AbortSignal): () => number {
  let count = 0;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...args: Parameters<typeof add>) => {
    count += 1;
    add(...args);
  };
  signal.removeEventListener = (...args: Parameters<typeof remove>) => {
    count -= 1;
    remove(...args);
  };
  return () => count;
}

test("a wait of more than 2^31 ms, or for ever, does not end at once", async () => {
  let fired = 0;
  const cancels = [3_000_000_000, Number.POSITIVE_INFINITY].map((ms) => systemClock.after(ms, () => (fired += 1)));
  await systemClock.sleep(20);
  for (const cancel of cancels) cancel();
  expect(fired).toBe(0);
});
