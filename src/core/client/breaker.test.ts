import { expect, test } from "bun:test";
import { circuitBreaker } from "./breaker.ts";
import { DEFAULTS } from "./options.ts";

const options = { threshold: 0.5, minimum: 20, openMs: 1_000, maxOpenMs: 30_000 };
const start = 1_700_000_000_000;

function tripped() {
  const breaker = circuitBreaker();
  for (let i = 0; i < 20; i += 1) breaker.record(start, "normal", "failed", options);
  return breaker;
}

test("the tested options are the defaults", () => expect(DEFAULTS.circuitBreaker).toEqual(options));

test("it opens when half of at least 20 attempts failed, not before", () => {
  const breaker = circuitBreaker();
  for (let i = 0; i < 10; i += 1) breaker.record(start, "normal", "ok", options);
  for (let i = 0; i < 9; i += 1) breaker.record(start, "normal", "failed", options);
  expect(breaker.state.kind).toBe("closed");
  breaker.record(start, "normal", "failed", options);
  expect(breaker.state).toEqual({ kind: "open", until: start + 1_000, openings: 0 });
});

test("attempts that say nothing about the service do not count", () => {
  const breaker = circuitBreaker();
  for (let i = 0; i < 100; i += 1) breaker.record(start, "normal", "ignored", options);
  expect(breaker.state.kind).toBe("closed");
});

test("failures of more than ten seconds ago are forgotten", () => {
  const breaker = circuitBreaker();
  for (let i = 0; i < 19; i += 1) breaker.record(start, "normal", "failed", options);
  for (let i = 0; i < 19; i += 1) breaker.record(start + 12_000, "normal", "failed", options);
  expect(breaker.state.kind).toBe("closed");
});

test("open, it admits nothing; then one probe, and nobody else until the probe answers", () => {
  const breaker = tripped();
  expect(breaker.admit(start + 999)).toBeUndefined();
  expect(breaker.admit(start + 1_000)).toBe("probe");
  expect(breaker.admit(start + 1_000)).toBeUndefined();
  breaker.record(start + 1_010, "probe", "ok", options);
  expect(breaker.admit(start + 1_010)).toBe("normal");
});

test("each failed probe doubles the wait, up to the cap", () => {
  const breaker = tripped();
  let now = start;
  const waits: number[] = [];
  for (let i = 0; i < 8; i += 1) {
    if (breaker.state.kind !== "open") throw new Error("not open");
    waits.push(breaker.state.until - now);
    now = breaker.state.until;
    expect(breaker.admit(now)).toBe("probe");
    breaker.record(now, "probe", "failed", options);
  }
  expect(waits).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
});

test("a probe that its caller aborted makes way for another at once", () => {
  const breaker = tripped();
  expect(breaker.admit(start + 1_000)).toBe("probe");
  breaker.record(start + 1_001, "probe", "ignored", options);
  expect(breaker.admit(start + 1_001)).toBe("probe");
});

test("late answers to attempts from before it opened do not close it", () => {
  const breaker = tripped();
  breaker.record(start + 10, "normal", "ok", options);
  expect(breaker.state.kind).toBe("open");
});
