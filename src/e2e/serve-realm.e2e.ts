// A service in its realm: real Atlas, sidecar and HAProxy. Rolling restarts lose nothing (R1), operators' words outlive
// processes, and a sidecar may come late or come again.
import { expect } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BINARY, eventually, scenario, type Spawned, type World } from "./harness.ts";

type Realm = {
  readonly atlas: string;
  readonly router: string;
  readonly socket: string;
  startSidecar(): Spawned;
};

/** @param address of this host, as others reach it */
async function realm(world: World, address = "127.0.0.1", name = "local"): Promise<Realm> {
  const [atlasPort, bind, admin] = [await world.port(), await world.port(), await world.port()];
  const atlas = `http://127.0.0.1:${atlasPort}`;
  const stateDir = join(world.directory, "state");
  const data = join(world.directory, "atlas");
  world.spawn([BINARY, "atlas", "--listen", `127.0.0.1:${atlasPort}`, "--realm", name, "--data-dir", data], {
    name: "atlas",
  });
  await eventually("Atlas is ready", async () => expect((await fetch(`${atlas}/readyz`)).status).toBe(200));
  return {
    atlas,
    router: `http://127.0.0.1:${bind}`,
    socket: join(stateDir, "sidecar.sock"),
    startSidecar: () =>
      world.spawn(
        [
          BINARY,
          "sidecar",
          "--stop-haproxy",
          "--atlas",
          atlas,
          "--realm",
          name,
          "--host",
          "host001",
          "--address",
          address,
          "--bind",
          `127.0.0.1:${bind}`,
          "--admin",
          `127.0.0.1:${admin}`,
          "--state-dir",
          stateDir,
        ],
        { name: "sidecar" },
      ),
  };
}

const SERVICE = `
import { smartService } from "smartstack";
import { z } from "zod";
const posts = new Map();
export default smartService("identity", {}, (app) => {
  app.get("/who", async () => {
    await Bun.sleep(Math.random() * 20);
    return process.pid;
  });
  app.post("/orders", { body: z.object({ id: z.string() }) }, async ({ body }) => {
    posts.set(body.id, (posts.get(body.id) ?? 0) + 1);
    await Bun.sleep(Math.random() * 20);
    console.log("order " + body.id);
    return { times: posts.get(body.id) };
  });
});
`;

async function writeService(world: World): Promise<void> {
  await writeFile(join(world.directory, "smartstack.yaml"), "name: identity\nowner: core\n");
  await writeFile(join(world.directory, "service.ts"), SERVICE);
}

const serve = (world: World, { socket }: Realm, port: number): Spawned =>
  world.spawn(
    [BINARY, "serve", ".", "--port", String(port), "--sidecar", socket, "--log-dir", join(world.directory, "log")],
    { name: `serve ${port}` },
  );

type Instance = { instance: string; enabled: boolean; healthy: boolean | null; draining: boolean };

async function instances(atlas: string): Promise<readonly Instance[]> {
  const response = await fetch(`${atlas}/v1/services/identity`);
  return response.status === 404 ? [] : ((await response.json()) as { instances: Instance[] }).instances;
}

const healthy = async (atlas: string): Promise<readonly string[]> =>
  (await instances(atlas))
    .filter((one) => one.healthy === true && !one.draining)
    .map((one) => one.instance)
    .sort();

const registered = (atlas: string, ports: readonly number[]): Promise<void> =>
  eventually("the instances are registered and healthy", async () =>
    expect(await healthy(atlas)).toEqual(ports.map((port) => `host001:${port}`).sort()),
  );

const ask = (router: string, path: string, init: RequestInit = {}): Promise<Response> =>
  fetch(router + path, { ...init, headers: { "runscope-service": "identity", "content-type": "application/json" } });

scenario(
  "R1: ten restarts of every instance under keep-alive load, GET and POST: none fails, no order is taken twice",
  async (world) => {
    await writeService(world);
    const host = await realm(world);
    host.startSidecar();
    const ports = [await world.port(), await world.port()].sort((a, b) => a - b);
    let running = ports.map((port) => serve(world, host, port));
    await registered(host.atlas, ports);
    await eventually("they are reached through the router", async () =>
      expect((await ask(host.router, "/who")).status).toBe(200),
    );

    const over = new AbortController();
    const failures: string[] = [];
    const sent = { gets: 0, posts: 0 };
    const everRan: Spawned[] = [...running];
    const load = async (send: () => Promise<Response>): Promise<void> => {
      while (!over.signal.aborted) {
        try {
          const response = await send();
          const text = await response.text();
          if (response.status !== 200) failures.push(`${response.status} ${text}`);
        } catch (error) {
          failures.push(String(error));
        }
      }
    };
    const clients = [0, 1, 2, 3, 4, 5, 6, 7].map((client) =>
      load(() => {
        if (client % 2 === 0) {
          sent.gets += 1;
          return ask(host.router, "/who");
        }
        sent.posts += 1;
        return ask(host.router, "/orders", { method: "POST", body: JSON.stringify({ id: `${client}-${sent.posts}` }) });
      }),
    );
    for (let round = 0; round < 10; round += 1) {
      for (const [index, port] of ports.entries()) {
        expect(await running[index]?.stop()).toBe(0);
        running = running.with(index, serve(world, host, port));
        everRan.push(...running.slice(index, index + 1));
        await registered(host.atlas, ports);
      }
    }
    over.abort();
    await Promise.all(clients);
    expect(failures.slice(0, 5)).toEqual([]);
    expect(Math.min(sent.gets, sent.posts)).toBeGreaterThan(500);
    for (const program of running) await program.stop();
    const orders = everRan.flatMap((program) => [...program.output().matchAll(/^order (.*)$/gm)].map(([, id]) => id));
    expect(orders.length).toBe(sent.posts);
    expect(new Set(orders).size).toBe(sent.posts);
    expect(await instances(host.atlas)).toEqual([]);
  },
  180_000,
);

scenario("a service publishes what it says about itself, and an operator's no outlives its restart", async (world) => {
  await writeService(world);
  const host = await realm(world);
  host.startSidecar();
  const port = await world.port();
  const first = serve(world, host, port);
  await registered(host.atlas, [port]);
  const { definition } = (await (await fetch(`${host.atlas}/v1/services/identity`)).json()) as {
    definition: Record<string, unknown>;
  };
  expect(definition).toMatchObject({ owner: "core", healthcheck: { path: "/readyz" } });
  const disabled = await world.run([BINARY, "disable", "identity", `host001:${port}`, "--wait", "--atlas", host.atlas]);
  expect(disabled.code).toBe(0);
  expect((await ask(host.router, "/who")).status).toBe(503);
  expect(await first.stop()).toBe(0);
  serve(world, host, port);
  await registered(host.atlas, [port]);
  expect((await instances(host.atlas))[0]?.enabled).toBe(false);
  // asked at once and all the while: not one request may slip through before Atlas has answered
  for (let turn = 0; turn < 20; turn += 1) expect((await ask(host.router, "/who")).status).toBe(503);
});

scenario(
  "a service that is there before its sidecar is registered as soon as that appears, and again after its restart",
  async (world) => {
    await writeService(world);
    // not the address it listens on while it is alone
    const host = await realm(world, "127.0.0.2");
    const port = await world.port();
    const service = serve(world, host, port);
    await eventually("it serves alone", async () =>
      expect((await fetch(`http://127.0.0.1:${port}/readyz`)).status).toBe(200),
    );
    await eventually("it says so", () => expect(service.output()).toContain("could not reach the sidecar"));
    const sidecar = host.startSidecar();
    await registered(host.atlas, [port]);
    await eventually("it is reached through the router", async () =>
      expect((await ask(host.router, "/who")).status).toBe(200),
    );
    expect((await fetch(`http://127.0.0.2:${port}/livez`)).status).toBe(200);
    sidecar.signal("SIGKILL");
    await sidecar.exited;
    host.startSidecar();
    await registered(host.atlas, [port]);
    expect(await service.stop()).toBe(0);
    expect(await instances(host.atlas)).toEqual([]);
  },
);

scenario(
  "a service that guessed its realm before its sidecar was there ends, so that its supervisor starts it right",
  async (world) => {
    await writeService(world);
    const host = await realm(world, "127.0.0.2", "prod");
    const [port, other] = [await world.port(), await world.port()];
    const service = serve(world, host, port);
    const command = world.spawn(
      [BINARY, "serve", "--name", "billing", "--port", String(other), "--sidecar", host.socket].concat([
        "--healthcheck",
        "/",
        "--",
        "python3",
        "-m",
        "http.server",
        String(other),
        "--bind",
        "127.0.0.1",
      ]),
    );
    await eventually("both say that they are alone", () => {
      expect(service.output()).toContain("could not reach the sidecar");
      expect(command.output()).toContain("could not reach the sidecar");
    });
    host.startSidecar();
    expect(await service.exited).toBe(1);
    expect(await command.exited).toBe(1);
    for (const program of [service, command])
      expect(program.output()).toContain("with the realm local; the sidecar's is prod, so this ends");
    expect(await instances(host.atlas)).toEqual([]);
    // at once, as after a reboot: while the sidecar is starting it is waited for
    serve(world, host, port);
    await registered(host.atlas, [port]);
    expect((await fetch(`http://127.0.0.2:${port}/livez`)).status).toBe(200);
  },
);

scenario(
  "a command is registered when it answers, drained before it is told to end, and gone when it dies",
  async (world) => {
    const host = await realm(world);
    host.startSidecar();
    await writeFile(
      join(world.directory, "app.ts"),
      `Bun.serve({ port: Number(process.env.PORT), hostname: "127.0.0.1", fetch: (request) => {
      if (request.url.endsWith("/die")) process.exit(9);
      return new Response("up");
    } });
    process.on("SIGTERM", () => process.exit(0));`,
    );
    const start = (port: number): Spawned =>
      world.spawn([
        BINARY,
        "serve",
        "--name",
        "identity",
        "--port",
        String(port),
        "--sidecar",
        host.socket,
        "--",
        "env",
        "BUN_BE_BUN=1",
        BINARY,
        "app.ts",
      ]);
    const ports = [await world.port(), await world.port()].sort((a, b) => a - b);
    const [one, two] = ports.map(start);
    await registered(host.atlas, ports);
    await eventually("it is reached through the router", async () =>
      expect(await (await ask(host.router, "/")).text()).toBe("up"),
    );
    expect(await one?.stop()).toBe(0);
    expect(await healthy(host.atlas)).toEqual([`host001:${ports[1]}`]);
    await fetch(`http://127.0.0.1:${ports[1]}/die`).catch(() => undefined);
    expect(await two?.exited).toBe(9);
    expect(await instances(host.atlas)).toEqual([]);
  },
);
