import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { resolveServiceConfig } from "../core/service/config.ts";
import { settingsLayers } from "./settings.ts";

let directory = "";
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-"));
});
afterAll(() => rm(directory, { recursive: true }));

test("file, environment and --set are laid over the defaults in this order, each value with its place", async () => {
  const file = join(directory, "settings.yaml");
  await writeFile(file, "# of this machine\nPAGE_SIZE: 1\nGREETING: file\nDEBUG: true\n");
  const defaults = { PAGE_SIZE: 20, GREETING: "hello", DEBUG: false, HOME_PAGE: "/" };
  const layers = settingsLayers(defaults, {
    file,
    environment: { GREETING: "environment", PAGE_SIZE: "2", HOME_PAGE: "", PATH: "/bin" },
    assignments: ["PAGE_SIZE=3"],
  });
  expect(resolveServiceConfig(defaults, layers).provenance).toEqual([
    { key: "PAGE_SIZE", shown: "3", source: "flag --set" },
    { key: "GREETING", shown: "environment", source: "environment GREETING" },
    { key: "DEBUG", shown: "true", source: `${file}:4` },
    { key: "HOME_PAGE", shown: "/", source: "default" },
  ]);
});

test("what is no assignment, no file or no YAML is refused", async () => {
  const sources = { file: undefined, environment: {}, assignments: [] };
  expect(() => settingsLayers({}, { ...sources, assignments: ["secret"] })).toThrow("--set wants KEY=VALUE");
  expect(() => settingsLayers({}, { ...sources, file: join(directory, "none.yaml") })).toThrow("cannot be read");
  const broken = join(directory, "broken.yaml");
  await writeFile(broken, "A: 1\nB: [\n");
  expect(() => settingsLayers({}, { ...sources, file: broken })).toThrow(`${broken}:3: `);
});
