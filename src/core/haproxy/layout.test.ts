import { expect, test } from "bun:test";
import { type Instance, registrationFromPut } from "../model/instance.ts";
import { definitionSchema } from "../model/service.ts";
import { checkIntervals, instanceOfServer, layoutOf, serverName } from "./layout.ts";

const instance = (service: string, name: string, more: Partial<Instance> = {}): Instance => ({
  ...registrationFromPut(service, name, { port: 5_000, address: "10.0.0.1" }),
  enabled: true,
  ...more,
});
const same = (address: string): string => address;

test("however many agents there are, all together check an instance at most ten times a second", () => {
  for (const agents of [0, 1, 19, 20, 21, 64, 1_000, 3_000, 100_000]) {
    const { steadyMs, hastyMs } = checkIntervals(2_000, agents);
    expect((agents * 1_000) / steadyMs).toBeLessThanOrEqual(10);
    expect(Math.log2(steadyMs / 2_000) % 1).toBe(0);
    expect(hastyMs).toBeLessThanOrEqual(steadyMs);
    expect(hastyMs).toBeGreaterThanOrEqual(2_000);
  }
  expect(checkIntervals(2_000, 20)).toEqual({ steadyMs: 2_000, hastyMs: 2_000 });
  expect(checkIntervals(2_000, 21)).toEqual({ steadyMs: 4_000, hastyMs: 2_000 });
  expect(checkIntervals(2_000, 3_000)).toEqual({ steadyMs: 512_000, hastyMs: 64_000 });
});

test("an instance's name survives HAProxy's narrower alphabet, and no two become one", () => {
  const names = [
    "host001",
    "host001:5000",
    "::1",
    "[::1]:5000",
    "::1:5000",
    "_a_:5000",
    "10.0.0.1:80",
    "[2001:db8::7]:1",
  ];
  const servers = names.map(serverName);
  expect(new Set(servers).size).toBe(names.length);
  expect(servers.map(instanceOfServer)).toEqual(names);
  for (const server of servers) expect(server).toMatch(/^[A-Za-z0-9.:_-]+$/);
});

test("disabled and draining instances drain, an agent's verdict counts, and without one HAProxy decides", () => {
  const { backends } = layoutOf(
    {
      services: { identity: definitionSchema.parse({}) },
      instances: [
        instance("identity", "a", { enabled: false, healthy: true }),
        instance("identity", "b", { draining: true, healthy: false }),
        instance("identity", "c", { healthy: null }),
      ],
      agents: 1,
    },
    same,
  );
  expect(backends.get("identity")?.servers.map(({ name, drain, health }) => [name, drain, health])).toEqual([
    ["a", true, "up"],
    ["b", true, "down"],
    ["c", false, "unknown"],
  ]);
});

test("tcp services, unknown services and unresolved addresses have no place in the routing", () => {
  const layout = layoutOf(
    {
      services: {
        cache: definitionSchema.parse({ protocol: "tcp", localPort: 6_379 }),
        web: definitionSchema.parse({}),
      },
      instances: [instance("cache", "a"), instance("nobody", "a"), instance("web", "a", { address: "lost" })],
      agents: 1,
    },
    (address) => (address === "lost" ? undefined : address),
  );
  expect(layout.tcp).toEqual(["cache"]);
  expect([...layout.backends.keys()]).toEqual(["web"]);
  expect(layout.backends.get("web")?.servers).toEqual([]);
});

test("what did not change is the same object as before", () => {
  const services = { a: definitionSchema.parse({}), b: definitionSchema.parse({}) };
  const instances = [instance("a", "one"), instance("b", "one")];
  const before = layoutOf({ services, instances, agents: 1 }, same);
  const changed = [instances[0]!, { ...instances[1]!, weight: 1 }];
  const after = layoutOf({ services, instances: changed, agents: 1 }, same, before);
  expect(after.backends.get("a")).toBe(before.backends.get("a"));
  expect(after.backends.get("b")).not.toBe(before.backends.get("b"));
});
