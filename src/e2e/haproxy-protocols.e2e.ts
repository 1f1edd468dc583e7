// What passes through: HTTP/2 without TLS, WebSockets, streams, and all of them across a reload.
import { expect } from "bun:test";
import { connect, createServer, type Http2Server, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { eventually, scenario, type World } from "./harness.ts";
import { backend, desired, instance, router, send } from "./haproxy-kit.ts";

/** A server that speaks nothing but HTTP/2 without TLS, as gRPC does, and ends with a trailer. */
async function h2c(world: World): Promise<{ port: number; checks: () => number }> {
  let checks = 0;
  const server: Http2Server = createServer();
  server.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
    if (headers[":path"] === "/healthcheck") checks += 1;
    stream.respond({ ":status": 200, "content-type": "text/plain" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.end(`h2 ${headers[":path"]}`);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  world.defer(() => void server.close());
  return { port: (server.address() as AddressInfo).port, checks: () => checks };
}

/** One request over HTTP/2 with prior knowledge. */
function call(port: number, service: string, path: string): Promise<{ status: number; body: string; trailer: string }> {
  return new Promise((resolve, reject) => {
    const session = connect(`http://127.0.0.1:${port}`);
    session.on("error", reject);
    const stream = session.request({ ":path": path, "runscope-service": service });
    let [status, body, trailer] = [0, "", ""];
    stream.on("response", (headers) => {
      status = Number(headers[":status"]);
    });
    stream.on("data", (chunk: Buffer) => {
      body += chunk.toString();
    });
    stream.on("trailers", (headers) => {
      trailer = String(headers["grpc-status"] ?? "");
    });
    stream.on("error", reject);
    stream.on("end", () => {
      session.close();
      resolve({ status, body, trailer });
    });
    stream.end();
  });
}

scenario(
  "h2c services take HTTP/2 and HTTP/1 clients, checked over HTTP/2, from the file and at run time",
  async (world) => {
    const { proxy, port } = await router(world);
    const [first, second] = [await h2c(world), await h2c(world)];
    const services = { grpc: { protocol: "h2c", healthcheck: { intervalMs: 100 } } } as const;
    await proxy.start(desired(services, [instance("grpc", "host001:5000", first.port)]));
    expect(await call(port, "grpc", "/hello")).toEqual({ status: 200, body: "h2 /hello", trailer: "0" });
    expect((await send(port, { "Runscope-Service": "grpc" }, "/one")).status).toBe(200);
    await proxy.apply(desired(services, [instance("grpc", "host002:5000", second.port)]));
    expect(await call(port, "grpc", "/again")).toEqual({ status: 200, body: "h2 /again", trailer: "0" });
    await eventually("the new one is checked", () => expect(second.checks()).toBeGreaterThan(2));
    await eventually("and found well", async () =>
      expect(await proxy.servers()).toMatchObject([
        { instance: "host002:5000", status: "UP", check: expect.stringMatching(/^check 200/) },
      ]),
    );
  },
);

scenario("WebSockets and streams pass, and a reload does not cut them", async (world) => {
  const { proxy, port } = await router(world);
  const echo = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: (request, server) => (server.upgrade(request) ? undefined : new Response("well")),
    websocket: { message: (socket, message) => void socket.send(`echo ${message.toString()}`) },
  });
  world.defer(() => echo.stop(true));
  const stream = backend(world, "stream");
  const steps = [Promise.withResolvers<string>(), Promise.withResolvers<string>()];
  stream.answer(
    () =>
      new Response(
        new ReadableStream({
          async start(controller) {
            for (const step of steps) controller.enqueue(await step.promise);
            controller.close();
          },
        }),
      ),
  );
  const instances = [
    instance("echo", "host001:5000", echo.port ?? 0, { healthy: true }),
    instance("stream", "host001:5001", stream.port, { healthy: true }),
  ];
  await proxy.start(desired({ echo: {}, stream: {} }, instances));

  const socket = new WebSocket(`ws://127.0.0.1:${port}/`, { headers: { "Runscope-Service": "echo" } });
  const messages: string[] = [];
  socket.addEventListener("message", ({ data }) => messages.push(String(data)));
  await new Promise((resolve) => socket.addEventListener("open", resolve));
  steps[0]?.resolve("before ");
  const body = fetch(`http://127.0.0.1:${port}/`, { headers: { "Runscope-Service": "stream" } }).then((answer) =>
    answer.text(),
  );
  await eventually("the stream began", () => expect(stream.requests()).toBe(1));

  expect((await proxy.apply(desired({ echo: {}, stream: {}, ads: {} }, instances))).reloaded).toBe(true);
  socket.send("hello");
  await eventually("the socket still answers", () => expect(messages).toEqual(["echo hello"]));
  steps[1]?.resolve("after");
  expect(await body).toBe("before after");
  socket.close();
});

scenario("tcp services are left out of the routing by header", async (world) => {
  const { proxy, port } = await router(world);
  const a = backend(world, "a");
  const services = { cache: { protocol: "tcp", localPort: 26_379 }, identity: {} } as const;
  const applied = await proxy.start(
    desired(services, [instance("cache", "host001:1", a.port), instance("identity", "host001:2", a.port)]),
  );
  expect(applied.rejected).toEqual([]);
  expect((await send(port, { "Runscope-Service": "cache" })).status).toBe(404);
  expect((await send(port, { "Runscope-Service": "identity" })).status).toBe(200);
});
