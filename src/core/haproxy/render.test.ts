// Golden files: fixtures/haproxy/<case>/ holds a snapshot and what is rendered from it. After a wanted change of the
// rendering, `UPDATE_GOLDEN=1 bun test src/core/haproxy` writes them anew; read the diff.
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { snapshotSchema } from "../model/snapshot.ts";
import { findBinary } from "./binary.ts";
import { layoutOf } from "./layout.ts";
import { render, type RenderContext, structureOf } from "./render.ts";
import { validate } from "./validate.ts";

const FIXTURES = resolve(import.meta.dir, "../../../fixtures/haproxy");

const context: RenderContext = {
  bind: "127.0.0.1:4000",
  header: "Runscope-Service",
  maxconn: 8_000,
  threads: 2,
  prometheus: true,
  metricsSocket: "/var/lib/smartstack/haproxy/metrics.sock",
};

function renderCase(name: string): ReturnType<typeof render> {
  const raw: unknown = JSON.parse(readFileSync(join(FIXTURES, name, "snapshot.json"), "utf8"));
  const { services, instances } = snapshotSchema.parse(raw);
  const agents = (raw as { agents?: number }).agents ?? 1;
  const layout = layoutOf({ services, instances, agents }, (address) => address);
  return render(layout, context, structureOf(layout, context));
}

const scratch = mkdtempSync(join(tmpdir(), "smartstack-golden-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe.each(readdirSync(FIXTURES))("fixtures/haproxy/%s", (name) => {
  const rendered = renderCase(name);

  test.each(Object.keys(rendered.files))("%s is what the snapshot renders to", (file) => {
    const path = join(FIXTURES, name, file);
    const text = rendered.files[file] ?? "";
    if (process.env["UPDATE_GOLDEN"] === "1") writeFileSync(path, text);
    expect(text).toBe(readFileSync(path, "utf8"));
  });

  test("HAProxy takes it", async () => {
    const binary = await findBinary();
    expect(await validate(binary.path, rendered, join(scratch, name))).toEqual({ kind: "valid" });
  });

  test("every service's lines are known, so that a complaint finds its service", () => {
    const lines = (rendered.files["haproxy.cfg"] ?? "").split("\n");
    for (const [service, [first, last]] of rendered.lines) {
      const section = lines.slice(first - 1, last).join("\n");
      expect(section).toContain(`backend ${service}-backend from service`);
      expect(section.match(/^backend /gm)?.length).toBe(1);
    }
  });
});

test("the same snapshot renders to the same text whatever the order of its parts", () => {
  const snapshot = snapshotSchema.parse(JSON.parse(readFileSync(join(FIXTURES, "deck/snapshot.json"), "utf8")));
  const services = Object.fromEntries(Object.entries(snapshot.services).reverse());
  const layout = layoutOf({ services, instances: [...snapshot.instances].reverse(), agents: 1 }, (address) => address);
  expect(render(layout, context, structureOf(layout, context)).files).toEqual(renderCase("deck").files);
});

test("a description changes the file and not the structure, a timeout changes both", () => {
  const snapshot = snapshotSchema.parse(JSON.parse(readFileSync(join(FIXTURES, "deck/snapshot.json"), "utf8")));
  const { api } = snapshot.services;
  if (api === undefined) throw new Error("the fixture has no api");
  const structure = (definition: typeof api): string => {
    const layout = layoutOf({ services: { api: definition }, instances: [], agents: 1 }, (address) => address);
    return structureOf(layout, context).id;
  };
  expect(structure({ ...api, description: "other" })).toBe(structure(api));
  expect(structure({ ...api, timeouts: { ...api.timeouts, requestMs: 5 } })).not.toBe(structure(api));
});
