import { expect, test } from "bun:test";
import { type Bulkheads, bulkheads, type Compartment } from "./bulkhead.ts";

/** Enters until it no longer may; the number of places got. */
function fill(compartment: Compartment, limit = 100): number {
  for (let count = 0; ; count += 1) {
    const entry = compartment.enter(limit);
    if (entry.kind === "in") continue;
    if (entry.kind === "queued") entry.cancel();
    return count;
  }
}

function hungServices(places: Bulkheads, count: number): number[] {
  return Array.from({ length: count }, () => fill(places.compartment()));
}

test("one hung service ends at its limit", () => {
  expect(fill(bulkheads(240).compartment())).toBe(100);
});

test("hung services never take all places: the next one always finds some", () => {
  const taken = hungServices(bulkheads(240), 5);
  expect(taken).toEqual([100, 70, 35, 18, 9]);
  expect(taken.reduce((sum, one) => sum + one, 0)).toBeLessThan(240);
});

test("without a limit of the runtime, services do not know of each other", () => {
  expect(hungServices(bulkheads(Number.POSITIVE_INFINITY), 4)).toEqual([100, 100, 100, 100]);
});

test("a place given back goes to who waited first", async () => {
  const compartment = bulkheads(10).compartment();
  expect(fill(compartment, 1)).toBe(1);
  const order: number[] = [];
  const waiting = [1, 2].map((number) => {
    const entry = compartment.enter(1);
    if (entry.kind !== "queued") throw new Error(entry.kind);
    return entry.ready.then(() => order.push(number));
  });
  compartment.leave();
  await waiting[0];
  expect(order).toEqual([1]);
  compartment.leave();
  await waiting[1];
  expect(order).toEqual([1, 2]);
  expect(compartment.inFlight).toBe(1);
});

test("a place given back by one service lets in those who wait for another", async () => {
  const places = bulkheads(4);
  const [first, second] = [places.compartment(), places.compartment()];
  expect([fill(first), fill(second)]).toEqual([2, 1]);
  const entry = second.enter(100);
  if (entry.kind !== "queued") throw new Error(entry.kind);
  first.leave();
  await entry.ready;
  expect([first.inFlight, second.inFlight]).toEqual([1, 2]);
});

test("who stops waiting leaves no trace, also when the place came at the same moment", () => {
  const compartment = bulkheads(10).compartment();
  fill(compartment, 1);
  const gone = compartment.enter(1);
  const late = compartment.enter(1);
  if (gone.kind !== "queued" || late.kind !== "queued") throw new Error("not queued");
  gone.cancel();
  expect(compartment.waiting).toBe(1);
  compartment.leave();
  expect(compartment.inFlight).toBe(1);
  late.cancel();
  expect([compartment.inFlight, compartment.waiting]).toEqual([0, 0]);
});

test("ten times the limit may wait, and no more", () => {
  const compartment = bulkheads(1_000).compartment();
  fill(compartment, 5);
  for (let i = 0; i < 50; i += 1) expect(compartment.enter(5).kind).toBe("queued");
  expect(compartment.enter(5).kind).toBe("full");
});
