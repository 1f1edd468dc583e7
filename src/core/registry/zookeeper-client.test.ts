// What a real server rarely says, from one that says it on demand; the rest is in src/e2e/zookeeper-faults.e2e.ts.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { createServer, type Server, type Socket } from "node:net";
import { systemClock } from "../lib/clock.ts";
import { errorCode } from "../lib/errors.ts";
import { ZooKeeperClient } from "./zookeeper-client.ts";

let server: Server;
let client: ZooKeeperClient;
let socket: Socket;
/** Requests that came, without their length, since the last connection. */
let asked: Buffer[];
let disconnects: string[];
let nextConnection: () => Promise<void>;

const int = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
};
const long = (value: number): Buffer => Buffer.concat([int(Math.floor(value / 2 ** 32)), int(value % 2 ** 32)]);
const frame = (...parts: readonly Buffer[]): Buffer => {
  const body = Buffer.concat(parts);
  return Buffer.concat([int(body.length), body]);
};
const stat = Buffer.concat([
  long(1),
  long(2),
  long(0),
  long(0),
  int(3),
  int(0),
  int(0),
  long(0),
  int(0),
  int(0),
  long(4),
]);
const xidOf = (request: Buffer | undefined): number => request?.readInt32BE(0) ?? -99;
const reply = (request: Buffer | undefined, error: number, ...payload: readonly Buffer[]): Buffer =>
  frame(int(xidOf(request)), long(7), int(error), ...payload);
const dataReply = (request: Buffer | undefined, data: string): Buffer =>
  reply(request, 0, int(data.length), Buffer.from(data), stat);

async function until(check: () => boolean): Promise<void> {
  while (!check()) await new Promise((resolve) => setImmediate(resolve));
}

beforeEach(async () => {
  asked = [];
  disconnects = [];
  let connected = Promise.withResolvers<void>();
  nextConnection = () => (connected = Promise.withResolvers<void>()).promise;
  server = createServer((peer) => {
    socket = peer;
    asked = [];
    let bytes = Buffer.alloc(0);
    let greeted = false;
    peer.on("data", (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      for (let size = bytes.length < 4 ? 0 : bytes.readInt32BE(0); size > 0 && bytes.length >= size + 4;) {
        const request = Buffer.from(bytes.subarray(4, size + 4));
        bytes = bytes.subarray(size + 4);
        size = bytes.length < 4 ? 0 : bytes.readInt32BE(0);
        if (greeted) asked.push(request);
        else peer.write(frame(int(0), int(10_000), long(77), int(16), Buffer.alloc(16)));
        greeted = true;
      }
    });
    peer.on("error", () => undefined);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  client = new ZooKeeperClient({
    hosts: `127.0.0.1:${port}`,
    chroot: "/prod",
    sessionTimeoutMs: 10_000,
    timers: systemClock,
    listener: {
      connected: () => connected.resolve(),
      disconnected: (why) => disconnects.push(why),
      ended: () => undefined,
      event: () => undefined,
    },
  });
  client.connect();
  await connected.promise;
});
afterEach(() => {
  client.abandon();
  server.close();
  socket.destroy();
});

test("a thousand replies in one packet are read one by one", async () => {
  const reads = Array.from({ length: 1_000 }, (_, index) => client.getData(`/n${index}`));
  await until(() => asked.length === 1_000);
  socket.write(Buffer.concat(asked.map((request, index) => dataReply(request, String(index)))));
  const answers = await Promise.all(reads);
  expect(answers.map(({ data }) => data)).toEqual(answers.map((_, index) => String(index)));
  expect(answers[0]?.stat).toEqual({ version: 3, mzxid: 2, pzxid: 4, mtime: 0, owner: "" });
  expect(disconnects).toEqual([]);
});

test("a reply that comes byte by byte is one reply", async () => {
  const read = client.getChildren("/");
  await until(() => asked.length === 1);
  expect(asked[0]?.toString()).toContain("/prod");
  socket.setNoDelay();
  for (const byte of reply(asked[0], 0, int(2), int(1), Buffer.from("a"), int(2), Buffer.from("bc"), stat)) {
    socket.write(Buffer.from([byte]));
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect((await read).children).toEqual(["a", "bc"]);
});

test("an error that the client does not know is the answer, not the end", async () => {
  const read = client.getData("/a").catch(errorCode);
  const write = client.commit([{ kind: "remove", path: "/a" }]).catch(errorCode);
  await until(() => asked.length === 2);
  // -125: a quota; -118: the session moved to another server
  socket.write(Buffer.concat([reply(asked[0], -125), reply(asked[1], -118)]));
  expect([await read, await write]).toEqual(["code_125", "code_118"]);
  expect(disconnects).toEqual([]);
});

test("half a reply is not carried into the next connection, and what waited there fails instead of being sent later", async () => {
  const read = client.getData("/a").catch(errorCode);
  await until(() => asked.length === 1);
  const again = nextConnection();
  socket.write(dataReply(asked[0], "half").subarray(0, 30), () => socket.destroy());
  expect(await read).toBe("connection_loss");
  await again;
  const second = client.getData("/b");
  await until(() => asked.length === 1);
  socket.write(dataReply(asked[0], "whole"));
  expect((await second).data).toBe("whole");
  expect(disconnects).toHaveLength(1);
});

test("what is asked without a connection fails, and is not sent through the next one", async () => {
  const again = nextConnection();
  socket.destroy();
  await until(() => disconnects.length === 1);
  expect(await client.commit([{ kind: "set", path: "/later", data: "" }]).catch(errorCode)).toBe("connection_loss");
  await again;
  const read = client.getData("/b");
  await until(() => asked.length > 0);
  expect(asked.map((request) => request.toString().includes("/later"))).toEqual([false]);
  socket.write(dataReply(asked[0], "b"));
  expect((await read).data).toBe("b");
});

test.each([
  ["nonsense", Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n")],
  ["an answer that nobody asked for", frame(int(999), long(1), int(0))],
  ["a reply that ends too early", frame(int(0), long(1), int(0), int(100), Buffer.from("short"))],
])("after %s the connection is given up, and nothing waits for ever", async (_, bytes) => {
  const read = client.getData("/a").catch(errorCode);
  await until(() => asked.length === 1);
  const again = nextConnection();
  socket.write(bytes);
  expect(await read).toBe("connection_loss");
  await again;
  expect(disconnects).toHaveLength(1);
});

test("a client that was closed asks nothing more", async () => {
  client.abandon();
  expect(await client.getData("/a").catch(errorCode)).toBe("connection_loss");
  expect(await client.commit([]).catch(errorCode)).toBe("connection_loss");
});
