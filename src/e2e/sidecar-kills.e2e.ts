// Every part of a host killed at random under load: what callers with the smart client notice of it, which is nothing.
import { expect } from "bun:test";
import { appendFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createSmartClient } from "../core/client/index.ts";
import { definitionSchema } from "../core/model/service.ts";
import { eventually, scenario, type World } from "./harness.ts";
import { backend } from "./haproxy-kit.ts";
import { startAtlas, startSidecar } from "./sidecar-kit.ts";

const quick = definitionSchema.parse({ healthcheck: { intervalMs: 300, timeoutMs: 300 } });

/** Steady GETs and POSTs, each POST with a key of its own. A GET that fails is a failure; a POST that ran twice is one. */
function callers(world: World, port: number) {
  const file = join(world.directory, "posts");
  const client = createSmartClient({ router: `http://127.0.0.1:${port}` });
  const ending = new AbortController();
  const failures: string[] = [];
  const answered: string[] = [];
  let sent = 0;
  const get = async (): Promise<void> => {
    while (!ending.signal.aborted) {
      sent += 1;
      await client.get("service://identity/").catch((error: unknown) => failures.push(String(error)));
      await Bun.sleep(10);
    }
  };
  const post = async (): Promise<void> => {
    while (!ending.signal.aborted) {
      sent += 1;
      const key = `key-${sent}`;
      const answer = await client.post("service://identity/", { headers: { "x-key": key } }).safe();
      // who lost the connection after sending cannot know, and must not send again
      if (answer.ok) answered.push(key);
      await Bun.sleep(20);
    }
  };
  const running = [get(), get(), get(), post(), post()];
  return {
    note: (key: string) => appendFileSync(file, `${key}\n`),
    async stop() {
      ending.abort();
      await Promise.all(running);
      const ran = readFileSync(file, "utf8").trim().split("\n");
      return {
        sent,
        failures,
        doubled: ran.length - new Set(ran).size,
        lost: answered.filter((key) => !ran.includes(key)),
      };
    },
  };
}

scenario("the sidecar, Atlas, and HAProxy's master and worker, one after the other and together", async (world) => {
  let atlas = await startAtlas(world);
  let sidecar = await startSidecar(world, atlas);
  const instances = [backend(world, "one"), backend(world, "two")];
  for (const { name, port } of instances) await sidecar.client.put("identity", name, { port, definition: quick });
  await eventually("both are usable", async () => expect((await sidecar.why("identity")).usable).toBe(2));
  const load = callers(world, sidecar.bind);
  for (const one of instances) {
    one.answer((request) => {
      if (request.method === "POST") load.note(request.headers.get("x-key") ?? "");
      return Response.json({ name: one.name });
    });
  }
  const sidecarDies = async (): Promise<void> => {
    sidecar.process.signal("SIGKILL");
    await sidecar.process.exited;
    await Bun.sleep(Math.random() * 200);
    sidecar = await startSidecar(world, atlas, { again: sidecar });
  };
  const atlasDies = async (): Promise<void> => {
    atlas.process.signal("SIGKILL");
    await atlas.process.exited;
    await Bun.sleep(Math.random() * 200);
    atlas = await startAtlas(world, atlas);
  };
  const haproxyDies = async (which: 0 | -1): Promise<void> => {
    const before = sidecar.haproxy();
    process.kill(before.at(which) ?? 0, "SIGKILL");
    await eventually("another one runs", () => {
      const now = sidecar.haproxy();
      expect(now.length).toBeGreaterThan(1);
      expect(now.some((pid) => before.includes(pid))).toBe(false);
    });
  };
  for (const step of [
    sidecarDies,
    atlasDies,
    () => haproxyDies(0),
    () => haproxyDies(-1),
    () => Promise.all([sidecarDies(), atlasDies()]),
    () => Promise.all([atlasDies(), haproxyDies(0)]),
  ]) {
    await Bun.sleep(Math.random() * 300);
    await step();
  }
  await eventually("both are usable", async () => expect((await sidecar.why("identity")).usable).toBe(2));
  const { sent, failures, doubled, lost } = await load.stop();
  expect(failures).toEqual([]);
  expect(doubled).toBe(0);
  expect(lost).toEqual([]);
  expect(sent).toBeGreaterThan(200);
});
