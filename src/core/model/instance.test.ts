import { expect, test } from "bun:test";
import {
  instanceSchema,
  isUsable,
  patchInstanceSchema,
  putInstanceSchema,
  registrationFromPut,
  sameInstance,
} from "./instance.ts";

const instance = { ...registrationFromPut("identity", "host001:5000", { port: 5000 }), enabled: true };

test("a registration takes the host of its name as address, weight 100 and no opinion on health", () => {
  expect(registrationFromPut("identity", "[::1]:5000", { port: 5000 })).toEqual({
    id: "identity/[::1]:5000",
    service: "identity",
    instance: "[::1]:5000",
    host: "::1",
    address: "::1",
    port: 5000,
    healthy: null,
    draining: false,
    weight: 100,
    zone: "",
    version: "",
    agent: null,
  });
});

test("a put keeps what it says", () => {
  const put = {
    port: 1,
    address: "10.0.0.1",
    weight: 0,
    zone: "a",
    version: "2",
    agent: "h",
    healthy: false,
    draining: true,
  };
  expect(registrationFromPut("identity", "h", putInstanceSchema.parse(put))).toMatchObject(put);
});

test("what a registration makes is an instance that every reader accepts", () => {
  expect(instanceSchema.parse(instance)).toEqual(instance);
});

test("writers' unknown fields and bad values are refused, readers' unknown fields ignored", () => {
  for (const bad of [
    {},
    { port: 0 },
    { port: "5000" },
    { port: 1.5 },
    { port: 5000, colour: "red" },
    { port: 5000, weight: 257 },
  ])
    expect([bad, putInstanceSchema.safeParse(bad).success]).toEqual([bad, false]);
  expect(instanceSchema.parse({ ...instance, colour: "red" })).toEqual(instance);
});

test("an empty patch is refused, for it is a mistake", () => {
  expect(patchInstanceSchema.safeParse({}).success).toBe(false);
  expect(patchInstanceSchema.parse({ healthy: null })).toEqual({ healthy: null });
});

test("usable is enabled, not draining, and not known to be ill", () => {
  const usable = (enabled: boolean, draining: boolean, healthy: boolean | null): boolean =>
    isUsable({ enabled, draining, healthy });
  expect(usable(true, false, true)).toBe(true);
  expect(usable(true, false, null)).toBe(true);
  expect(usable(true, false, false)).toBe(false);
  expect(usable(true, true, true)).toBe(false);
  expect(usable(false, false, true)).toBe(false);
});

test("a change of any single field makes another instance", () => {
  expect(sameInstance(instance, { ...instance })).toBe(true);
  const changed = {
    id: "x",
    service: "x",
    instance: "x",
    host: "x",
    address: "x",
    port: 1,
    enabled: false,
    healthy: true,
    draining: true,
    weight: 1,
    zone: "x",
    version: "x",
    agent: "x",
  };
  for (const key of Object.keys(instance) as (keyof typeof changed)[])
    expect([key, sameInstance(instance, { ...instance, [key]: changed[key] })]).toEqual([key, false]);
});
