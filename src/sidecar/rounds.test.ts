import { expect, test } from "bun:test";
import { fakeClock } from "../core/lib/clock.ts";
import { silentLogger } from "../core/lib/logger.ts";
import { rounds } from "./rounds.ts";

function setup(next: (key: string) => number | undefined = () => 1_000, limit = 32) {
  const clock = fakeClock();
  const visits: string[] = [];
  const gates: (() => void)[] = [];
  let gated = false;
  const round = rounds({
    clock,
    logger: silentLogger,
    limit,
    firstMs: () => 10,
    async visit(key) {
      visits.push(key);
      if (gated) await new Promise<void>((resolve) => gates.push(resolve));
      return next(key);
    },
  });
  return { clock, visits, round, gates, gate: () => (gated = true) };
}

test("what is kept is visited again and again, what is not no more", async () => {
  const { clock, visits, round } = setup();
  round.keep(["a", "b"]);
  await clock.advance(10);
  expect(visits).toEqual(["a", "b"]);
  round.keep(["b", "c"]);
  await clock.advance(1_000);
  expect(visits.slice(2).sort()).toEqual(["b", "c"]);
  round.stop();
  expect(clock.pending).toBe(0);
});

test("keeping what is kept does not start it again", async () => {
  const { clock, visits, round } = setup();
  for (let time = 0; time < 10; time += 1) {
    round.keep(["a"]);
    await clock.advance(5);
  }
  expect(visits).toEqual(["a"]);
});

test("a visit now replaces the one that was due", async () => {
  const { clock, visits, round } = setup();
  round.keep(["a"]);
  await round.now("a");
  expect(visits).toEqual(["a"]);
  await clock.advance(999);
  expect(visits).toEqual(["a"]);
  await clock.advance(1);
  expect(visits).toEqual(["a", "a"]);
});

test("no more than the limit at once, and everyone gets a turn", async () => {
  const { clock, visits, round, gates, gate } = setup(() => undefined, 2);
  gate();
  round.keep(["a", "b", "c"]);
  await clock.advance(10);
  expect(visits).toEqual(["a", "b"]);
  gates.shift()?.();
  await clock.advance(0);
  expect(visits).toEqual(["a", "b", "c"]);
});

test("a visit that throws does not end the rounds", async () => {
  const { clock, visits, round } = setup((key) => {
    throw new Error(`no ${key}`);
  });
  round.keep(["a"]);
  await clock.advance(10);
  await clock.advance(1_000);
  expect(visits).toEqual(["a", "a"]);
});
