import { expect, spyOn, test } from "bun:test";
import { Fault } from "../core/lib/errors.ts";
import type { Running } from "../core/lib/running.ts";
import { runProgram } from "./lifecycle.ts";

function program(stop: () => Promise<void> = async () => undefined): Running & { end(fault: Fault | undefined): void } {
  const { promise: ended, resolve: end } = Promise.withResolvers<Fault | undefined>();
  return {
    ended,
    end,
    async stop() {
      await stop();
      end(undefined);
    },
  };
}

test("a program that ends by itself says why", async () => {
  const running = program();
  const outcome = runProgram(async () => running);
  const fault = new Fault({ code: "broken", message: "broken" });
  running.end(fault);
  expect(await outcome).toBe(fault);
});

test("SIGTERM stops it, SIGHUP does what the program wants, and no handler stays behind", async () => {
  const before = process.listenerCount("SIGTERM");
  let hangups = 0;
  const started = Promise.withResolvers<void>();
  const outcome = runProgram(
    async () => {
      started.resolve();
      return program();
    },
    { onHangup: () => void (hangups += 1) },
  );
  await started.promise;
  await Promise.resolve();
  process.emit("SIGHUP", "SIGHUP");
  process.emit("SIGTERM", "SIGTERM");
  expect(await outcome).toBeUndefined();
  expect(hangups).toBe(1);
  expect(process.listenerCount("SIGTERM")).toBe(before);
});

test("a signal that comes while it starts stops it as soon as it runs", async () => {
  const start = Promise.withResolvers<Running>();
  const outcome = runProgram(() => start.promise);
  process.emit("SIGINT", "SIGINT");
  start.resolve(program());
  expect(await outcome).toBeUndefined();
});

test("a SIGHUP that comes while it starts counts as soon as it runs, once", async () => {
  const start = Promise.withResolvers<ReturnType<typeof program>>();
  const running = program();
  let hangups = 0;
  const outcome = runProgram(() => start.promise, { onHangup: () => void (hangups += 1) });
  process.emit("SIGHUP", "SIGHUP");
  process.emit("SIGHUP", "SIGHUP");
  expect(hangups).toBe(0);
  start.resolve(running);
  await Promise.resolve();
  await Promise.resolve();
  expect(hangups).toBe(1);
  running.end(undefined);
  await outcome;
});

test("a failing stop is the program's failure, not a hang", async () => {
  const running = program(async () => {
    throw new Error("will not stop");
  });
  const outcome = runProgram(async () => running);
  await Promise.resolve();
  await Promise.resolve();
  process.emit("SIGTERM", "SIGTERM");
  expect(outcome).rejects.toThrow("will not stop");
});

test("a start that waits for ever ends when it is interrupted, which is no failure", async () => {
  const outcome = runProgram(
    (interrupt) =>
      new Promise<Running>((_, reject) => {
        interrupt.addEventListener("abort", () => reject(interrupt.reason));
      }),
  );
  process.emit("SIGTERM", "SIGTERM");
  expect(await outcome).toBeUndefined();
});

test("a SIGHUP that fails ends nothing", async () => {
  const running = program();
  const outcome = runProgram(async () => running, { onHangup: () => Promise.reject(new Error("no such directory")) });
  await Promise.resolve();
  await Promise.resolve();
  const told = spyOn(console, "error").mockImplementation(() => undefined);
  process.emit("SIGHUP", "SIGHUP");
  await new Promise((resolve) => setImmediate(resolve));
  expect(told.mock.calls).toEqual([["smartstack: SIGHUP: no such directory"]]);
  told.mockRestore();
  running.end(undefined);
  await outcome;
});
