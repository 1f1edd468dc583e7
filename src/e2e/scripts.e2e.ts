// The scripts as a stranger meets them: the demo from beginning to end, and a machine without a network.
import { expect } from "bun:test";
import { cp, mkdir, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { scenario } from "./harness.ts";

const ROOT = resolve(import.meta.dir, "../..");

scenario(
  "the demo breaks things, loses no request, agrees with HAProxy's log and leaves nothing behind",
  async (world) => {
    const before = await demoDirectories();
    const demo = world.spawn(["bun", join(ROOT, "scripts/demo.ts"), "--once", "--free-ports"], { name: "demo" });
    expect(await demo.exited).toBe(0);
    expect(demo.output()).toMatch(/kill -9 identity:\d+ +0 failed of [1-9]/);
    expect(demo.output()).toContain("in agreement");
    expect(demo.output()).toMatch(/[1-9][\d,]* sent, 0 failed/);
    expect(await demoDirectories()).toEqual(before);
  },
  120_000,
);

scenario("without a network the set-up ends in a sentence that says what to do", async (world) => {
  const copy = join(world.directory, "clone");
  await mkdir(copy);
  for (const name of ["scripts", "package.json", "bun.lock"])
    await cp(join(ROOT, name), join(copy, name), { recursive: true });
  // a network namespace of its own has no way out
  const privileged = process.getuid?.() === 0 ? [] : ["--map-root-user"];
  const setup = await world.run(["unshare", "--net", ...privileged, join(copy, "scripts/setup")], {
    cwd: copy,
    // what this machine fetched before would do without a network
    env: { npm_config_cache: join(world.directory, "npm"), BUN_INSTALL_CACHE_DIR: join(world.directory, "bun") },
  });
  expect(setup.code).toBe(1);
  expect(setup.stderr.trim().split("\n").at(-1)).toBe(
    "setup: Bun could not be installed; is the npm registry within reach?",
  );
  await rm(copy, { recursive: true });
});

/** The demo's scratch directories that lie in the temporary directory now. */
async function demoDirectories(): Promise<string[]> {
  return (await readdir(tmpdir())).filter((name) => name.startsWith("smartstack-demo-"));
}
