import { expect, test } from "bun:test";
import { type Instance, registrationFromPut } from "../model/instance.ts";
import { sharesOf } from "./shares.ts";

const instance = (weight: number, version = "", more: Partial<Instance> = {}): Instance => ({
  ...registrationFromPut("identity", "host001", { port: 5_000, weight, version }),
  enabled: true,
  ...more,
});
const shares = (...weights: number[]): readonly number[] =>
  sharesOf(
    weights.map((weight) => instance(weight)),
    undefined,
  );

test("equal weights become equal small ones, and ratios are kept exactly", () => {
  expect(shares(100, 100, 100)).toEqual([16, 16, 16]);
  expect(shares(100)).toEqual([16]);
  expect(shares(100, 50)).toEqual([16, 8]);
  expect(shares(100, 1)).toEqual([100, 1]);
  expect(shares(256, 255, 0)).toEqual([256, 255, 0]);
  expect(shares(0, 0)).toEqual([0, 0]);
  expect(shares()).toEqual([]);
});

test("a split gives every version its percentage, however many instances it has", () => {
  const instances = [instance(100, "v2"), ...Array.from({ length: 10 }, () => instance(100, "v1"))];
  const result = sharesOf(instances, { v1: 99, v2: 1 });
  const sum = result.reduce((a, b) => a + b, 0);
  expect((result[0] ?? 0) / sum).toBeGreaterThan(0.0095);
  expect((result[0] ?? 0) / sum).toBeLessThan(0.0105);
});

test("a version outside the split gets nothing; what its versions cannot take goes to the others", () => {
  const [one, two, other] = [instance(100, "v1"), instance(100, "v2"), instance(100, "v3")];
  expect(sharesOf([one, two, other], { v1: 50, v2: 50 })).toEqual([256, 256, 0]);
  expect(sharesOf([one, { ...two, draining: true }, other], { v1: 50, v2: 50 })).toEqual([256, 0, 0]);
  expect(sharesOf([other], { v1: 100 })).toEqual([16]);
});
