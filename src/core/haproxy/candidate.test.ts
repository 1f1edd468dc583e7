import { expect, test } from "bun:test";
import { type Definition, definitionSchema } from "../model/service.ts";
import { createCandidates } from "./candidate.ts";
import { type Layout, layoutOf } from "./layout.ts";
import type { Loaded } from "./loaded.ts";
import { type RenderContext, structureOf } from "./render.ts";

const context: RenderContext = {
  bind: "127.0.0.1:4000",
  header: "Runscope-Service",
  maxconn: 1_000,
  threads: 1,
  prometheus: false,
  metricsSocket: "/run/metrics.sock",
};
const good = definitionSchema.parse({});
const bad = definitionSchema.parse({ healthcheck: { path: "/bad" } });
const layout = (services: Record<string, Definition>): Layout =>
  layoutOf({ services, instances: [], agents: 1 }, (address) => address);
const loaded = (services: Record<string, Definition>): Loaded => ({
  structure: structureOf(layout(services), context),
  definitions: services,
  master: 1,
});

/** A HAProxy that does not like `/bad`, and says where, or only that. */
function haproxy(blames: boolean) {
  let asked = 0;
  const candidates = createCandidates({
    context,
    validate: async ({ files, lines }) => {
      asked += 1;
      const text = (files["haproxy.cfg"] ?? "").split("\n");
      const guilty = [...lines].filter(([, [first, last]]) =>
        text
          .slice(first - 1, last)
          .join("\n")
          .includes("'/bad'"),
      );
      if (guilty.length === 0) return { kind: "valid" };
      if (!blames) return { kind: "invalid", error: "no" };
      return { kind: "blamed", services: new Map(guilty.map(([service]) => [service, "bad path"])) };
    },
  });
  return { candidates, asked: () => asked };
}

test.each([true, false])(
  "the services that HAProxy refuses stay as they were, the others go on (it says which: %p)",
  async (blames) => {
    const { candidates } = haproxy(blames);
    const before = loaded({ identity: good, billing: good });
    const services = { identity: bad, billing: good, ads: good, first: bad, last: bad };
    const { wanted, rejected } = await candidates.accept(layout(services), 1, before);
    expect(rejected.map(({ service }) => service).sort()).toEqual(["first", "identity", "last"]);
    expect([...wanted.layout.backends.keys()]).toEqual(["ads", "billing", "identity"]);
    expect(wanted.layout.backends.get("identity")?.definition).toEqual(good);
  },
);

test("HAProxy is asked again only when something changed", async () => {
  const { candidates, asked } = haproxy(true);
  const before = loaded({ identity: good });
  await candidates.accept(layout({ identity: bad, ads: good }), 1, before);
  const questions = asked();
  await candidates.accept(layout({ identity: bad, ads: good }), 1, before);
  expect(asked()).toBe(questions);
  const mended = await candidates.accept(layout({ identity: good, ads: good }), 1, before);
  expect(mended.rejected).toEqual([]);
});

test("what already runs is not asked about", async () => {
  const { candidates, asked } = haproxy(true);
  await candidates.accept(layout({ identity: good }), 1, loaded({ identity: good }));
  expect(asked()).toBe(0);
});

test("when even what is good is refused, nobody is blamed", async () => {
  const candidates = createCandidates({ context, validate: async () => ({ kind: "invalid", error: "no memory" }) });
  const failure = await candidates.accept(layout({ ads: good }), 1, undefined).catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: "haproxy_failed", message: expect.stringContaining("no memory") });
});

test("while HAProxy cannot be asked, what is new waits in its last good form, and is asked about again", async () => {
  let full = true;
  const candidates = createCandidates({
    context,
    validate: async () => (full ? { kind: "unasked", error: "no space left on device" } : { kind: "valid" }),
  });
  const before = loaded({ identity: good, billing: good });
  const after = layout({ identity: bad, billing: good, ads: good });
  const { wanted, rejected } = await candidates.accept(after, 1, before);
  expect(rejected).toEqual([
    { service: "ads", error: "no space left on device" },
    { service: "identity", error: "no space left on device" },
  ]);
  expect(wanted.structure.id).toBe(before.structure.id);
  full = false;
  expect((await candidates.accept(after, 1, before)).rejected).toEqual([]);
});
