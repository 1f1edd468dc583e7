// How long a connection may be silent, on a real socket: Bun looks at idle connections every four seconds.
import { afterEach, expect, test } from "bun:test";
import { connect, type Socket } from "node:net";
import { fakeClock } from "../core/lib/clock.ts";
import { Propagation } from "./propagation.ts";
import { ANYONE } from "./access.ts";
import { createWorld } from "./fixture.ts";
import { agentRoutes } from "./routes-agents.ts";
import type { Respond } from "./router.ts";
import { serve } from "./server.ts";
import { type StreamEnd, Watcher } from "./watcher.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

test("a connection falls under the idle limit again when its wait is over", async () => {
  const respond = async (_: Request, peer: { noIdleLimit: () => () => void }): Promise<Response> => {
    const limitIdle = peer.noIdleLimit();
    limitIdle();
    return new Response("done");
  };
  const server = serve({ address: { host: "127.0.0.1", port: 0 }, respond, idleS: 1 });
  cleanups.push(() => server.stop());
  const socket = connect(Number(new URL(server.url).port), "127.0.0.1", () =>
    socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
  );
  cleanups.push(() => socket.destroy());
  socket.resume();
  await new Promise((resolve) => socket.once("close", resolve));
}, 15_000);

/** The route of streams on a real socket; the hub sends what `world` does. */
async function streams() {
  const world = await createWorld();
  const watch = agentRoutes({
    ...world,
    degraded: () => [],
    replicas: () => 1,
    store: "embedded",
    propagation: new Propagation(world.clock),
  }).find(({ path }) => path === "/v1/watch");
  const respond: Respond = (request, peer) =>
    watch?.respond(request, {}, peer, ANYONE) ?? Promise.reject(new Error("there is no such route"));
  const server = serve({ address: { host: "127.0.0.1", port: 0 }, respond, idleS: 1 });
  cleanups.push(
    () => world.dispose(),
    () => server.stop(),
  );
  const open = async (query: string): Promise<Socket> => {
    const port = Number(new URL(server.url).port);
    const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true }, () =>
      socket.write(`GET /v1/watch${query} HTTP/1.1\r\nHost: x\r\n\r\n`),
    );
    cleanups.push(() => socket.destroy());
    await new Promise((resolve) => socket.once("data", resolve));
    return socket;
  };
  return { world, open };
}

test("a body that trickles is cut off, although bytes come all the time", async () => {
  const respond = async (request: Request): Promise<Response> => new Response(await request.text());
  const server = serve({ address: { host: "127.0.0.1", port: 0 }, respond, idleS: 2 });
  cleanups.push(() => server.stop());
  const socket = connect(Number(new URL(server.url).port), "127.0.0.1", () =>
    socket.write("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"),
  );
  const drip = setInterval(() => socket.write("x"), 200);
  cleanups.push(() => clearInterval(drip));
  socket.on("error", () => undefined);
  socket.resume();
  await new Promise((resolve) => socket.once("close", resolve));
}, 15_000);

test.each(["", "?agent=a&boot=1"])(
  "a stream (%s) may be silent for as long as it likes, and its connection ends with it",
  async (query) => {
    const { world, open } = await streams();
    const socket = await open(query);
    const closed = new Promise((resolve) => socket.once("end", () => resolve("closed")));
    expect(await Promise.race([closed, Bun.sleep(6_000)])).toBeUndefined();
    world.hub.stop("enough");
    expect(await closed).toBe("closed");
  },
  15_000,
);

test("a reader that is cut off loses its connection, with all that was unsent", async () => {
  const ends: StreamEnd[] = [];
  const clock = fakeClock();
  const watcher = new Watcher({ clock, first: Buffer.from("first"), onEnd: (end) => ends.push(end) });
  const respond: Respond = async (_, peer) => {
    peer.noIdleLimit();
    return new Response(watcher.body);
  };
  const server = serve({ address: { host: "127.0.0.1", port: 0 }, respond });
  cleanups.push(() => server.stop());
  const socket = connect(Number(new URL(server.url).port), "127.0.0.1", () =>
    socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
  );
  cleanups.push(() => socket.destroy());
  await new Promise((resolve) => socket.once("data", resolve));
  socket.pause();
  let sent = 0;
  for (; ends.length === 0 && sent < 100_000_000; sent += 100_000) {
    watcher.send(Buffer.alloc(100_000));
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(ends.map(({ by }) => by)).toEqual(["slow"]);
  let read = 0;
  socket.on("data", (data: Buffer) => {
    read += data.byteLength;
  });
  // a connection that breaks may say so
  socket.on("error", () => undefined);
  await new Promise((resolve) => {
    socket.once("close", resolve);
    socket.resume();
  });
  expect(read).toBeLessThan(sent - 1_000_000);
});
