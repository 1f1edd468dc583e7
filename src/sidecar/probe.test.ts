import { afterAll, beforeAll, expect, test } from "bun:test";
import { createServer } from "node:net";
import { type DefinitionInput, definitionSchema } from "../core/model/service.ts";
import { freePort } from "../e2e/harness.ts";
import { probe, type ProbeResult } from "./probe.ts";

const requests: { host: string | null; path: string }[] = [];
const http = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  async fetch(request) {
    const { pathname } = new URL(request.url);
    requests.push({ host: request.headers.get("host"), path: pathname });
    if (pathname === "/never") await new Promise(() => undefined);
    return new Response("", { status: Number(pathname.slice(1)) || 200, headers: { location: "/elsewhere" } });
  },
});
const silent = createServer();
let silentPort = 0;

beforeAll(async () => {
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const address = silent.address();
  silentPort = typeof address === "object" && address !== null ? address.port : 0;
});
afterAll(async () => {
  await http.stop(true);
  silent.close();
});

const ask = (port: number, definition: DefinitionInput): Promise<ProbeResult> =>
  probe({ address: "127.0.0.1", port, definition: definitionSchema.parse(definition) });
const path = (path: string, timeoutMs = 500): DefinitionInput => ({ healthcheck: { path, timeoutMs } });

test("an HTTP check asks the definition's path with a Host, and 2xx and 3xx pass", async () => {
  expect((await ask(http.port!, path("/200"))).passed).toBe(true);
  expect((await ask(http.port!, path("/302"))).passed).toBe(true);
  expect(requests.at(-1)).toEqual({ host: `127.0.0.1:${http.port}`, path: "/302" });
  const failed = await ask(http.port!, path("/503"));
  expect(failed.passed).toBe(false);
  expect(failed.detail).toMatch(/^check 503, \d+ ms$/);
});

test("an HTTP check fails when the answer takes longer than its timeout", async () => {
  expect((await ask(http.port!, path("/never", 100))).passed).toBe(false);
});

test("an HTTP check fails on a server that accepts and says nothing", async () => {
  expect((await ask(silentPort, path("/", 100))).passed).toBe(false);
});

test("tcp and h2c services are checked by connecting", async () => {
  expect((await ask(silentPort, { protocol: "tcp" })).passed).toBe(true);
  expect((await ask(silentPort, { protocol: "h2c" })).passed).toBe(true);
});

test("nobody there fails both kinds", async () => {
  const port = await freePort();
  expect((await ask(port, {})).passed).toBe(false);
  expect((await ask(port, { protocol: "tcp" })).passed).toBe(false);
});
