import { describe, expect, test } from "bun:test";
import { advance, changesBetween, type Held, NOTHING, type Touched, type Znodes } from "./zookeeper-state.ts";

type Text = string | null | undefined;
type Given = {
  instances?: Record<string, { port: string | null; enabled?: Text; meta?: Text }>;
  removals?: Record<string, { reason: string | null; revision: number }>;
  definitions?: Record<string, Text>;
  settings?: Record<string, Text>;
};

const znodes = ({ instances = {}, removals = {}, definitions = {}, settings = {} }: Given): Znodes => ({
  instance(id) {
    const node = instances[id];
    return node === undefined ? undefined : { port: node.port, enabled: node.enabled, meta: node.meta };
  },
  removal: (id) => removals[id],
  definition: (service) => definitions[service],
  settings: (service) => settings[service],
});
const touch = (instances: string[] = [], definitions: string[] = [], settings: string[] = []): Touched => ({
  instances: new Set(instances),
  definitions: new Set(definitions),
  settings: new Set(settings),
});
const at = (revision: number, generation = 1) => ({ generation, revision });
const A = touch(["web/a"]);

/** What one instance becomes, step by step. */
function steps(...given: readonly Given[]): Held {
  return given.reduce((held, nodes, index) => advance(held, at(index + 1), A, znodes(nodes)), NOTHING);
}

describe("the state", () => {
  test("is what the znodes say, with defaults where there are none", () => {
    const held = steps({ instances: { "web/a": { port: "5000" } } });
    expect(held.state.instances.get("web/a")).toMatchObject({ port: 5000, enabled: true, weight: 100, address: "a" });
    expect(held.problems.size).toBe(0);
  });

  test("keeps each last good value where a node makes no sense, and follows the others", () => {
    const good = { port: "5000", enabled: "False", meta: '{"weight": 7}' };
    const held = steps(
      { instances: { "web/a": good } },
      { instances: { "web/a": { port: "x", enabled: "True", meta: "{" } } },
    );
    expect(held.state.instances.get("web/a")).toMatchObject({ port: 5000, enabled: true, weight: 7 });
    expect([...held.problems]).toEqual([
      ["/hosts/web/a", 'is "x", not a port from 1 to 65535; what it said before stays'],
      ["/hosts/web/a/meta", 'is "{", not JSON; what it said before stays'],
    ]);
    const mended = advance(held, at(3), A, znodes({ instances: { "web/a": good } }));
    expect(mended.problems.size).toBe(0);
  });

  test("ignores what never made sense", () => {
    const held = steps({ instances: { "web/a": { port: "x" } } });
    expect(held.state.instances.size).toBe(0);
    expect([...held.problems.values()]).toEqual(['is "x", not a port from 1 to 65535; it is ignored']);
    const other = steps({ instances: { "web/a": { port: "1", enabled: "?", meta: "?" } } });
    expect(other.state.instances.get("web/a")).toMatchObject({ port: 1, enabled: true, weight: 100 });
  });

  test("keeps what is there and cannot be read", () => {
    const held = steps({ instances: { "web/a": { port: "5000" } } }, { instances: { "web/a": { port: null } } });
    expect(held.state.instances.get("web/a")?.port).toBe(5000);
  });

  test("forgets problems with the node that had them", () => {
    expect(steps({ instances: { "web/a": { port: "x", meta: "{" } } }, {}).problems.size).toBe(0);
  });

  test("knows who is away and disabled; an empty node of an enabled one is nothing", () => {
    expect([...steps({ instances: { "web/a": { port: "", enabled: "False" } } }).away.keys()]).toEqual(["web/a"]);
    expect(steps({ instances: { "web/a": { port: "" } } }).away.size).toBe(0);
    const garbled = steps(
      { instances: { "web/a": { port: "", enabled: "False" } } },
      { instances: { "web/a": { port: "", enabled: "fasle" } } },
    );
    expect(garbled.away.size).toBe(1);
  });

  test("shows a removal only while the instance is gone", () => {
    const removals = { "web/a": { reason: "expired", revision: 5 } };
    expect([...steps({ removals }).state.removed.values()]).toEqual([{ id: "web/a", reason: "expired", revision: 5 }]);
    expect(steps({ removals, instances: { "web/a": { port: "1" } } }).state.removed.size).toBe(0);
  });

  test("shares what did not change", () => {
    const before = steps({ instances: { "web/a": { port: "5000" } } });
    const after = advance(before, at(9), A, znodes({ instances: { "web/a": { port: "5000", enabled: "True" } } }));
    expect(after.state.instances).toBe(before.state.instances);
    expect(after.state.revision).toBe(9);
  });
});

describe("a change", () => {
  const from = advance(
    NOTHING,
    at(1),
    touch(["web/a", "web/b"], ["web", "api"], ["web"]),
    znodes({
      instances: { "web/a": { port: "1" }, "web/b": { port: "2" } },
      definitions: { web: "1", api: "1" },
      settings: { web: "1" },
    }),
  );

  test("tells what came, changed and went, with the reason where there is one", () => {
    const touched = touch(["web/a", "web/b", "web/c"], ["web", "api"]);
    const to = advance(
      from,
      at(7),
      touched,
      znodes({
        instances: { "web/c": { port: "3" } },
        removals: { "web/a": { reason: "expired", revision: 7 } },
        definitions: { web: "2" },
      }),
    );
    expect(changesBetween(from, to, touched)).toEqual([
      {
        kind: "change",
        state: to.state,
        since: 1,
        definitions: { put: new Map([["web", 2]]), delete: ["api"] },
        instances: {
          put: [to.state.instances.get("web/c") as never],
          delete: [{ id: "web/a", reason: "expired" }, { id: "web/b" }],
        },
      },
    ]);
  });

  test("of the position alone is told, too: the next one follows it", () => {
    const to = advance(from, at(2), A, znodes({ instances: { "web/a": { port: "1" } } }));
    expect(changesBetween(from, to, A)).toMatchObject([
      { kind: "change", since: 1, instances: { put: [], delete: [] } },
    ]);
    expect(changesBetween(from, from, A)).toEqual([]);
  });

  test("mends what replicas had differently while a node made no sense, also where the last good value stayed", () => {
    const touched = touch(["web/a"], ["web"], ["web"]);
    const good = {
      instances: { "web/a": { port: "1", enabled: "False" } },
      definitions: { web: "1" },
      settings: { web: "1" },
    };
    const garbage = {
      instances: { "web/a": { port: "x", enabled: "?" } },
      definitions: { web: "x" },
      settings: { web: "x" },
    };
    const all = (revision: number, held: Held, given: Given) => advance(held, at(revision), touched, znodes(given));
    const stayed = all(2, all(1, NOTHING, good), garbage);
    const late = all(2, NOTHING, garbage);
    expect([stayed.state.instances.size, late.state.instances.size]).toEqual([1, 0]);
    for (const held of [stayed, late]) {
      expect(changesBetween(held, all(3, held, good), touched)).toMatchObject([
        { definitions: { put: new Map([["web", 1]]) }, instances: { put: [{ port: 1, enabled: false }], delete: [] } },
        { kind: "settings", service: "web" },
      ]);
      expect(changesBetween(held, all(3, held, {}), touched)).toMatchObject([
        { definitions: { delete: ["web"] }, instances: { put: [], delete: [{ id: "web/a" }] } },
        { kind: "settings", service: "web" },
      ]);
    }
  });

  test("of settings is none of the position", () => {
    const touched = touch([], [], ["web"]);
    const to = advance(from, at(1), touched, znodes({ settings: { web: "2" } }));
    expect(changesBetween(from, to, touched)).toEqual([{ kind: "settings", state: to.state, service: "web" }]);
  });

  test("to another generation is a reset", () => {
    const to = advance(from, at(1, 2), A, znodes({}));
    expect(changesBetween(from, to, A)).toEqual([{ kind: "reset", state: to.state }]);
  });
});
