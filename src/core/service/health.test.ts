import { expect, test } from "bun:test";
import { fakeClock } from "../lib/clock.ts";
import { silentLogger } from "../lib/logger.ts";
import { Health } from "./health.ts";

function setUp(): { clock: ReturnType<typeof fakeClock>; health: Health } {
  const clock = fakeClock();
  return { clock, health: new Health(clock, "host001", silentLogger) };
}

test("a report has Runscope's shape, and one failing check makes it a failure", async () => {
  const { clock, health } = setUp();
  health.add("redis", () => [true, "PONG"]);
  health.add("disk", () => {
    throw new Error("disk is full");
  });
  health.add("quiet", () => undefined);
  const now = clock.now() / 1_000;
  expect(await health.report()).toEqual({
    hostname: "host001",
    status: "failure",
    timestamp: now,
    results: [
      { checker: "redis", output: "PONG", passed: true, timestamp: now, expires: now + 27 },
      { checker: "disk", output: "disk is full", passed: false, timestamp: now, expires: now + 9 },
      { checker: "quiet", output: "passed", passed: true, timestamp: now, expires: now + 27 },
    ],
  });
});

test("passes are cached for 27 s, failures for 9 s", async () => {
  const { clock, health } = setUp();
  let [good, bad] = [0, 0];
  health.add("good", () => `run ${(good += 1)}`, { critical: false });
  health.add("bad", () => [false, `run ${(bad += 1)}`], { critical: false });
  await health.report();
  await clock.advance(8_999);
  await health.report();
  expect([good, bad]).toEqual([1, 1]);
  await clock.advance(1);
  await health.report();
  expect([good, bad]).toEqual([1, 2]);
  await clock.advance(18_000);
  await health.report();
  expect([good, bad]).toEqual([2, 3]);
});

test("reports that come together share one run", async () => {
  const { health } = setUp();
  let runs = 0;
  health.add("slow", async () => {
    runs += 1;
    await Promise.resolve();
  });
  await Promise.all([health.report(), health.report(), health.report()]);
  expect(runs).toBe(1);
});

test("a hung check fails when its time is over, its signal aborts, and readiness never waits for it", async () => {
  const { clock, health } = setUp();
  let aborted = false;
  health.add(
    "hung",
    ({ signal }) =>
      new Promise<void>(() => {
        signal.addEventListener("abort", () => {
          aborted = true;
        });
      }),
    { timeoutMs: 500 },
  );
  expect(health.failing()).toEqual(["hung: not checked yet"]);
  const started = health.start();
  await clock.advance(500);
  await started;
  expect(aborted).toBe(true);
  expect(health.failing()).toEqual(["hung: no answer within 500 ms"]);
  health.stop();
});

test("a critical check runs in the background: lost within 2 s, back within 1 s of passing again", async () => {
  const { clock, health } = setUp();
  let up = true;
  health.add("database", () => up);
  health.add("cache", () => false, { critical: false });
  await health.start();
  expect(health.failing()).toEqual([]);
  up = false;
  await clock.advance(2_000);
  expect(health.failing()).toEqual(["database: failed"]);
  up = true;
  await clock.advance(1_000);
  expect(health.failing()).toEqual([]);
  health.stop();
  expect(clock.pending).toBe(0);
});
