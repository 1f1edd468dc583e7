// A laptop's realm under one command: it comes up as a whole, and nothing of it stays.
import { expect } from "bun:test";
import { createServer } from "node:net";
import { join } from "node:path";
import { BINARY, eventually, flags, processesOf, scenario, type Spawned, type World } from "./harness.ts";

type Dev = { readonly process: Spawned; readonly atlas: string; readonly router: string; readonly state: string };

async function startDev(world: World): Promise<Dev> {
  const [atlas, router, admin] = [await world.port(), await world.port(), await world.port()];
  const state = join(world.directory, "state");
  const options = { "state-dir": state, listen: local(atlas), bind: local(router), admin: local(admin) };
  const process = world.spawn([BINARY, "dev", ...flags(options)], { name: "dev" });
  await eventually("dev says what it runs", () => expect(process.output()).toContain("Ctrl-C ends all of it."));
  return { process, atlas: `http://${local(atlas)}`, router: `http://${local(router)}`, state };
}

function local(port: number): string {
  return `127.0.0.1:${port}`;
}

async function get(router: string, service: string, path: string): Promise<number> {
  const response = await fetch(`${router}${path}`, { headers: { "runscope-service": service } });
  await response.text();
  return response.status;
}

scenario("dev routes to a generated service, and Ctrl-C ends all of it", async (world) => {
  const dev = await startDev(world);
  const made = await world.run([BINARY, "gen", "identity", "--atlas", dev.atlas, "--no-git"]);
  expect(made).toMatchObject({ code: 0 });

  const options = { port: await world.port(), sidecar: join(dev.state, "sidecar.sock"), "log-dir": world.directory };
  const service = world.spawn([BINARY, "serve", "identity", ...flags(options)], { name: "identity" });
  await eventually("HAProxy routes to it", async () => expect(await get(dev.router, "identity", "/teams")).toBe(200));
  const status = await world.run([BINARY, "status", "--atlas", dev.atlas]);
  expect(status.stdout).toMatch(/identity\s+1\/1/);
  expect(await service.stop()).toBe(0);

  expect(await processesOf(dev.state)).not.toEqual([]);
  dev.process.signal("SIGINT");
  expect(await dev.process.exited).toBe(0);
  expect(await processesOf(dev.state)).toEqual([]);
});

scenario("dev takes up where it was left, also after kill -9", async (world) => {
  const dev = await startDev(world);
  const defined = await world.run([BINARY, "define", "billing", "owner=money", "--atlas", dev.atlas]);
  expect(defined).toMatchObject({ code: 0 });
  dev.process.signal("SIGKILL");
  await dev.process.exited;

  const options = {
    "state-dir": dev.state,
    listen: new URL(dev.atlas).host,
    bind: new URL(dev.router).host,
    admin: local(await world.port()),
  };
  const again = world.spawn([BINARY, "dev", ...flags(options)], { name: "dev again" });
  await eventually("it runs again", () => expect(again.output()).toContain("Ctrl-C"));
  await eventually("the definition is routed", async () => expect(await get(dev.router, "billing", "/")).toBe(503));
  expect(await again.stop()).toBe(0);
  expect(await processesOf(dev.state)).toEqual([]);
});

scenario("a busy port, a second dev and a missing HAProxy end with a sentence, and leave nothing", async (world) => {
  const busy = await world.port();
  const blocker = createServer().listen(busy, "127.0.0.1");
  world.defer(() => void blocker.close());
  const freePorts = async () => ({
    listen: local(await world.port()),
    bind: local(await world.port()),
    admin: local(await world.port()),
  });
  const dev = (options: Readonly<Record<string, string>>) => world.run([BINARY, "dev", ...flags(options)]);

  for (const flag of ["listen", "bind", "admin"]) {
    const state = join(world.directory, flag);
    const ended = await dev({ ...(await freePorts()), "state-dir": state, [flag]: local(busy) });
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain(String(busy));
    expect(await processesOf(state)).toEqual([]);
  }

  const first = await startDev(world);
  const second = await dev({ ...(await freePorts()), "state-dir": first.state });
  expect(second.code).toBe(1);
  expect(second.stderr).toContain(first.state);

  const haproxy = join(world.directory, "nowhere/haproxy");
  const without = await dev({ ...(await freePorts()), "state-dir": join(world.directory, "none"), haproxy });
  expect(without.code).toBe(1);
  expect(without.stderr).toContain(haproxy);
});
