import { expect, test } from "bun:test";
import { fakeClock } from "../lib/clock.ts";
import { createAddresses } from "./addresses.ts";

test("IP addresses are taken as they are, names are asked once in a while", async () => {
  const clock = fakeClock();
  const asked: string[] = [];
  const addresses = createAddresses({
    clock,
    onLate: () => undefined,
    resolve: async (name) => {
      asked.push(name);
      return "10.0.0.7";
    },
  });
  await addresses.refresh(["host001", "host001", "10.0.0.1", "::1"]);
  expect(["host001", "10.0.0.1", "0:0::1", "host002"].map((name) => addresses.of(name))).toEqual([
    "10.0.0.7",
    "10.0.0.1",
    "::1",
    undefined,
  ]);
  await addresses.refresh(["host001"]);
  expect(asked).toEqual(["host001"]);
  await clock.advance(30_000);
  await addresses.refresh(["host001"]);
  expect(asked).toEqual(["host001", "host001"]);
});

test("a name that no longer resolves keeps its last address", async () => {
  const clock = fakeClock();
  let works = true;
  const addresses = createAddresses({
    clock,
    onLate: () => undefined,
    resolve: async () => {
      if (works) return "10.0.0.7";
      throw new Error("SERVFAIL");
    },
  });
  await addresses.refresh(["host001"]);
  works = false;
  await clock.advance(60_000);
  await addresses.refresh(["host001", "host002"]);
  expect([addresses.of("host001"), addresses.of("host002")]).toEqual(["10.0.0.7", undefined]);
});

test("name servers that do not answer hold nobody up, and are heard when they do", async () => {
  const clock = fakeClock();
  const answer = Promise.withResolvers<string>();
  let late = 0;
  const addresses = createAddresses({ clock, onLate: () => (late += 1), resolve: () => answer.promise });
  const refreshed = addresses.refresh(["host001"]);
  await clock.advance(1_000);
  await refreshed;
  expect(addresses.of("host001")).toBeUndefined();
  answer.resolve("10.0.0.7");
  await clock.advance(0);
  expect([addresses.of("host001"), late]).toEqual(["10.0.0.7", 1]);
});
