import { expect, test } from "bun:test";
import { registrationFromPut } from "../model/instance.ts";
import { definitionSchema } from "../model/service.ts";
import type { RunningServer } from "./changes.ts";
import { layoutOf } from "./layout.ts";
import { createLeaving, DELETE_AFTER_MS } from "./leaving.ts";
import type { Running } from "./plan.ts";

const layout = layoutOf(
  {
    services: { identity: definitionSchema.parse({}) },
    instances: [{ ...registrationFromPut("identity", "stays", { port: 1, address: "10.0.0.1" }), enabled: true }],
    agents: 1,
  },
  (address) => address,
);
const running = (...out: string[]): Running => {
  const servers = out.map((name): [string, RunningServer] => [
    name,
    {
      name,
      id: 1,
      address: "10.0.0.1",
      port: 1,
      weight: 1,
      drain: false,
      maintenance: true,
      checked: true,
      up: false,
      pinnable: false,
    },
  ]);
  return { loaded: undefined, servers: new Map([["identity-backend", new Map(servers)]]) };
};

test("a server is due ten seconds after it was first seen out, and again ten seconds after a refusal", () => {
  const leaving = createLeaving();
  leaving.note(running("gone"), layout, undefined, 1_000);
  leaving.note(running("gone", "later"), layout, new Set(["identity-backend"]), 5_000);
  expect(leaving.nextAt()).toBe(1_000 + DELETE_AFTER_MS);
  expect(leaving.takeDue(10_999)).toEqual([]);
  expect(leaving.takeDue(11_000)).toEqual([{ backend: "identity-backend", server: "gone" }]);
  expect(leaving.nextAt()).toBe(15_000);
  expect(leaving.takeDue(21_000).map(({ server }) => server)).toEqual(["gone", "later"]);
});

test("one that returned, or is wanted, or was dropped by a reload, does not wait any more", () => {
  const leaving = createLeaving();
  leaving.note(running("gone", "stays"), layout, undefined, 0);
  expect([leaving.has("identity-backend", "gone"), leaving.has("identity-backend", "stays")]).toEqual([true, false]);
  leaving.note(running(), layout, new Set(["other-backend"]), 1);
  expect(leaving.has("identity-backend", "gone")).toBe(true);
  leaving.note(running(), layout, new Set(["identity-backend"]), 1);
  expect(leaving.has("identity-backend", "gone")).toBe(false);
  leaving.note(running("gone"), layout, undefined, 2);
  leaving.clear();
  expect(leaving.nextAt()).toBeUndefined();
});
