import { expect, test } from "bun:test";
import { fakeClock } from "./clock.ts";
import { serial } from "./serial.ts";

test("work runs one at a time, in the order it was given", async () => {
  const clock = fakeClock();
  const queue = serial();
  const ran: string[] = [];
  const work = (name: string, ms: number) => async (): Promise<string> => {
    ran.push(`${name} begins`);
    await clock.sleep(ms);
    ran.push(`${name} ends`);
    return name;
  };
  const results = Promise.all([queue.run(work("slow", 30)), queue.run(work("quick", 1))]);
  await clock.advance(100);
  expect(await results).toEqual(["slow", "quick"]);
  expect(ran).toEqual(["slow begins", "slow ends", "quick begins", "quick ends"]);
});

test("a failure is its caller's and stops nobody behind it", async () => {
  const queue = serial();
  const failing = queue.run(() => Promise.reject(new Error("mine")));
  const next = queue.run(() => Promise.resolve("fine"));
  expect(await failing.catch((error: unknown) => error)).toMatchObject({ message: "mine" });
  expect(await next).toBe("fine");
});

test("work that throws before its first await is a failure like any other", async () => {
  const queue = serial();
  const failing = queue.run(() => {
    throw new Error("early");
  });
  expect(await failing.catch((error: unknown) => error)).toMatchObject({ message: "early" });
  await queue.idle();
});

test("idle waits for everything that was queued, failures included", async () => {
  const clock = fakeClock();
  const queue = serial();
  let ended = 0;
  for (const ms of [5, 10])
    void queue.run(async () => {
      await clock.sleep(ms);
      ended += 1;
    });
  const idle = queue.idle().then(() => ended);
  await clock.advance(100);
  expect(await idle).toBe(2);
});
