// How long a connection may be silent, on a real socket: Bun looks at idle connections every four seconds.
import { afterEach, expect, test } from "bun:test";
import { connect } from "node:net";
import { Propagation } from "./propagation.ts";
import { ANYONE } from "./access.ts";
import { createWorld } from "./fixture.ts";
import { agentRoutes } from "./routes-agents.ts";
import { serve } from "./server.ts";

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

test.each(["", "?agent=a&boot=1"])("a stream (%s) lifts it, and puts it back when it ends", async (query) => {
  const world = await createWorld();
  cleanups.push(() => world.dispose());
  const watch = agentRoutes({
    ...world,
    degraded: () => [],
    replicas: () => 1,
    store: "embedded",
    propagation: new Propagation(world.clock),
  }).find(({ path }) => path === "/v1/watch");
  const calls: string[] = [];
  const noIdleLimit = (): (() => void) => {
    calls.push("lifted");
    return () => calls.push("back");
  };
  await watch?.respond(new Request(`http://x/v1/watch${query}`), {}, { address: "", noIdleLimit }, ANYONE);
  expect(calls).toEqual(["lifted"]);
  world.hub.stop("enough");
  expect(calls).toEqual(["lifted", "back"]);
});
