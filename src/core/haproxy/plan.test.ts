// What runs, what is wanted, and the way between: one pair for every case.
import { describe, expect, test } from "bun:test";
import { type Instance, registrationFromPut } from "../model/instance.ts";
import { type DefinitionInput, definitionSchema } from "../model/service.ts";
import type { RunningServer } from "./changes.ts";
import { layoutOf } from "./layout.ts";
import { plan, type Running, type Wanted } from "./plan.ts";
import { type RenderContext, structureOf } from "./render.ts";

const context: RenderContext = {
  bind: "127.0.0.1:4000",
  header: "Runscope-Service",
  maxconn: 1_000,
  threads: 1,
  prometheus: true,
  metricsSocket: "/run/metrics.sock",
};

type Services = Readonly<Record<string, DefinitionInput>>;

const instance = (name: string, more: Partial<Instance> = {}): Instance => ({
  ...registrationFromPut("identity", name, { port: 5_000, address: "10.0.0.1" }),
  enabled: true,
  healthy: true,
  ...more,
});

function wanted(services: Services, instances: readonly Instance[] = [], agents = 1, own = context): Wanted {
  const parsed = Object.fromEntries(
    Object.entries(services).map(([name, definition]) => [name, definitionSchema.parse(definition)]),
  );
  const layout = layoutOf({ services: parsed, instances, agents }, (address) => address);
  return { layout, structure: structureOf(layout, own) };
}

const up: RunningServer = {
  name: "a",
  id: 1,
  address: "10.0.0.1",
  port: 5_000,
  weight: 16,
  drain: false,
  maintenance: false,
  checked: true,
  up: true,
  pinnable: true,
};

/** A HAProxy that was loaded with `services` and now has these servers in identity. */
function running(services: Services, servers: readonly Partial<RunningServer>[] = []): Running {
  const { layout, structure } = wanted(services);
  const definitions = Object.fromEntries([...layout.backends].map(([name, { definition }]) => [name, definition]));
  const empty = [...layout.backends.values()].map(({ name }): [string, Map<string, RunningServer>] => [
    name,
    new Map(),
  ]);
  const all = new Map(empty);
  for (const [index, server] of servers.entries()) {
    const full = { ...up, id: index + 1, ...server };
    all.get("identity-backend")?.set(full.name, full);
  }
  return { loaded: { structure, definitions, master: 1 }, servers: all };
}

const one = { identity: {} };
const texts = (from: Running, to: Wanted): readonly string[] => {
  const result = plan(from, to);
  return result.kind === "none" ? [] : result.commands.map(({ text }) => text);
};
const S = "identity-backend/a";

describe("instances of a known service change through the runtime API", () => {
  const cases: { name: string; from: Partial<RunningServer>[]; pins?: string[]; to: Instance[]; commands: string[] }[] =
    [
      { name: "nothing to do", from: [up], to: [instance("a")], commands: [] },
      {
        name: "a new instance",
        from: [up],
        to: [instance("a", { weight: 80 }), instance("b", { address: "::7", weight: 5 })],
        commands: [
          "add server identity-backend/b [::7]:5000 id 2 weight 1 check inter 2000ms fastinter 2000ms downinter 2000ms rise 2 fall 3 observe layer4",
          "enable health identity-backend/b",
          "set server identity-backend/b state drain",
          "set server identity-backend/b state ready",
        ],
      },
      {
        name: "new instances get the lowest free ids",
        from: [{ ...up, id: 2 }],
        to: [instance("a"), instance("b"), instance("c")],
        commands: expect.arrayContaining([
          expect.stringContaining("add server identity-backend/b 10.0.0.1:5000 id 1 "),
          expect.stringContaining("add server identity-backend/c 10.0.0.1:5000 id 3 "),
        ]),
      },
      {
        name: "a new instance that drains never gets a balanced request",
        from: [],
        to: [instance("a", { draining: true })],
        commands: [expect.stringContaining("add server"), `enable health ${S}`, `set server ${S} state drain`],
      },
      {
        name: "a new instance that is down never gets any request",
        from: [],
        to: [instance("a", { healthy: false })],
        commands: [
          expect.stringContaining("add server"),
          `enable health ${S}`,
          `set server ${S} state drain`,
          `disable health ${S}`,
          `set server ${S} health down`,
          `set server ${S} state ready`,
          `add acl unpinnable.lst ${S}`,
        ],
      },
      {
        name: "a removed instance",
        from: [up],
        to: [],
        commands: [`add acl unpinnable.lst ${S}`, `set server ${S} state maint`],
      },
      { name: "one that is out already", from: [{ ...up, maintenance: true, pinnable: false }], to: [], commands: [] },
      {
        name: "one that returns before it was deleted",
        from: [{ ...up, maintenance: true, up: false, pinnable: false }],
        to: [instance("a", { port: 5_001 })],
        commands: [
          `enable health ${S}`,
          `set server ${S} state drain`,
          `set server ${S} addr 10.0.0.1 port 5001`,
          `set server ${S} state ready`,
          `del acl unpinnable.lst ${S}`,
        ],
      },
      {
        name: "disabled",
        from: [up],
        to: [instance("a", { enabled: false })],
        commands: [`set server ${S} state drain`],
      },
      {
        name: "enabled again",
        from: [{ ...up, drain: true }],
        to: [instance("a")],
        commands: [`set server ${S} state ready`],
      },
      { name: "weight", from: [up], to: [instance("a", { weight: 0 })], commands: [`set server ${S} weight 0`] },
      {
        name: "weights count beside each other",
        from: [up, { name: "b" }],
        to: [instance("a", { weight: 50 }), instance("b", { weight: 100 })],
        commands: [`set server ${S} weight 8`],
      },
      { name: "a weight that all share changes nothing", from: [up], to: [instance("a", { weight: 7 })], commands: [] },
      {
        name: "address",
        from: [up],
        to: [instance("a", { address: "10.0.0.9" })],
        commands: [`set server ${S} addr 10.0.0.9 port 5000`],
      },
      {
        name: "the agent says down",
        from: [up],
        to: [instance("a", { healthy: false })],
        commands: [`disable health ${S}`, `set server ${S} health down`, `add acl unpinnable.lst ${S}`],
      },
      {
        name: "the agent says up again: at once",
        from: [{ ...up, checked: false, up: false, pinnable: false }],
        to: [instance("a", { healthy: true })],
        commands: [`enable health ${S}`, `set server ${S} health up`, `del acl unpinnable.lst ${S}`],
      },
      {
        name: "the agent has no verdict any more: HAProxy's checks decide, and pins wait for them",
        from: [{ ...up, checked: false, up: false, pinnable: false }],
        to: [instance("a", { healthy: null })],
        commands: [`enable health ${S}`, `del acl unpinnable.lst ${S}`],
      },
      {
        name: "HAProxy's own verdict is left alone, and counts for pins",
        from: [{ ...up, up: false }],
        to: [instance("a")],
        commands: [`add acl unpinnable.lst ${S}`],
      },
      {
        name: "what a reload made of a drained instance: state before weight",
        from: [{ ...up, weight: 0 }],
        to: [instance("a", { draining: true })],
        commands: [`set server ${S} state drain`, `set server ${S} weight 16`],
      },
      {
        name: "what a reload made of a down instance: verdict before weight",
        from: [{ ...up, weight: 0, pinnable: false }],
        to: [instance("a", { healthy: false })],
        commands: [`disable health ${S}`, `set server ${S} health down`, `set server ${S} weight 16`],
      },
    ];
  test.each(cases)("$name", ({ from, to, commands }) => {
    expect(texts(running(one, from), wanted(one, to))).toEqual(commands);
  });

  test("what takes something from clients is marked, what gives is not", () => {
    const taking = [
      [instance("a", { enabled: false })],
      [instance("a", { healthy: false })],
      [instance("a", { address: "10.0.0.9" })],
      [],
    ];
    for (const to of taking) {
      const result = plan(running(one, [up]), wanted(one, to));
      expect(result.kind === "runtime" && result.commands.some(({ takes }) => takes)).toBe(true);
    }
    const giving = plan(running(one, [{ ...up, drain: true }]), wanted(one, [instance("a"), instance("b")]));
    expect(giving.kind === "runtime" && giving.commands.some(({ takes }) => takes)).toBe(false);
  });
});

describe("structure needs a reload, and the reason is told", () => {
  const reasons = (from: Running, to: Wanted): readonly string[] => {
    const result = plan(from, to);
    return result.kind === "reload" ? result.reasons : [];
  };
  test.each([
    { name: "a new service", to: { identity: {}, ads: {} }, reason: 'service "ads" added' },
    { name: "a service that went", to: {}, reason: 'service "identity" removed' },
    {
      name: "a changed timeout",
      to: { identity: { timeouts: { requestMs: 5 } } },
      reason: 'service "identity" changed: timeouts.requestMs 30000 → 5',
    },
    {
      name: "several changes at once",
      to: { identity: { balance: "leastconn", slowStartMs: 9, healthcheck: { path: "/x" } } } as const,
      reason:
        'service "identity" changed: healthcheck.path /healthcheck → /x, balance "random" → "leastconn", slowStartMs unset → 9',
    },
    {
      name: "a service that is no longer routed by header",
      to: { identity: { protocol: "tcp", localPort: 99 } } as const,
      reason: 'service "identity" removed',
    },
  ])("$name", ({ to, reason }) => {
    expect(reasons(running(one), wanted(to))).toEqual([reason]);
  });

  test("what HAProxy does not know of is no reason", () => {
    const to = wanted({ identity: { description: "who is who", owner: "core", datastores: ["redis"] } });
    expect(plan(running(one), to)).toEqual({ kind: "none" });
  });

  test("checks must become rarer at once when agents join, and may become more frequent with the next reload", () => {
    expect(reasons(running(one), wanted(one, [], 21))).toEqual([
      'service "identity" changed: checks every 2000 → 4000 ms, since there are more agents',
    ]);
    const crowded = wanted(one, [], 21);
    const from = { ...running(one), loaded: { ...running(one).loaded!, structure: crowded.structure } };
    expect(plan(from, wanted(one))).toEqual({ kind: "none" });
  });

  test("settings of HAProxy itself", () => {
    const other = wanted(one, [], 1, { ...context, bind: "127.0.0.1:4009" });
    expect(reasons(running(one), other)).toEqual(["the settings of HAProxy itself changed"]);
  });

  test("a HAProxy that was loaded with something unknown", () => {
    expect(reasons({ ...running(one), loaded: undefined }, wanted(one))).toEqual([
      "the running HAProxy was loaded with something else",
    ]);
  });

  test("a backend that is missing although it was loaded heals by a reload", () => {
    expect(reasons({ ...running(one), servers: new Map() }, wanted(one))).toEqual([
      'service "identity" is missing in the running HAProxy',
    ]);
  });

  test("instances of services that stay, or go, do not wait for the reload", () => {
    const result = plan(running(one, [up]), wanted({ ads: {} }));
    expect(result).toMatchObject({
      kind: "reload",
      reasons: ['service "ads" added', 'service "identity" removed'],
      commands: [{ text: `add acl unpinnable.lst ${S}` }, { text: `set server ${S} state maint` }],
    });
    const drained = plan(running(one, [up]), wanted({ identity: {}, ads: {} }, [instance("a", { enabled: false })]));
    expect(drained).toMatchObject({ kind: "reload", commands: [{ text: `set server ${S} state drain` }] });
  });
});
