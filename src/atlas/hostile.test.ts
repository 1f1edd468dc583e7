// Atlas over HTTP against callers that are broken, careless or worse: each gets a plain no, and none gets our log.
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Logger, silentLogger } from "../core/lib/logger.ts";
import { type RunningAtlas, startAtlas } from "./atlas.ts";

let directory: string;
let atlas: RunningAtlas;
/** What was logged as an error. */
const errors: unknown[] = [];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-atlas-"));
  const logger: Logger = Object.assign(Object.create(silentLogger), { error: (what: unknown) => errors.push(what) });
  const config = {
    listen: { host: "127.0.0.1", port: 0 },
    realm: "local",
    store: { kind: "embedded" as const, dataDir: directory },
  };
  atlas = await startAtlas(config, { logger });
});
afterAll(async () => {
  await atlas.stop();
  await rm(directory, { recursive: true, force: true });
});
beforeEach(() => {
  errors.length = 0;
});

const json = { "content-type": "application/json" };

async function put(path: string, body: string | Uint8Array<ArrayBuffer>): Promise<{ status: number; detail: string }> {
  const response = await fetch(new URL(path, atlas.url), { method: "PUT", headers: json, body });
  const { detail = "" } = (await response.json()) as { detail?: string };
  return { status: response.status, detail };
}

/** Sends bytes; the answer up to its header's end, or "" when the connection ended without one. */
function raw(request: string, end: "keep" | "half-close" | "reset" = "keep"): Promise<string> {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(atlas.url);
    const socket = connect({ port: Number(port), host: hostname, allowHalfOpen: true }, () => {
      socket.write(request, () => {
        if (end === "half-close") socket.end();
        if (end === "reset") socket.resetAndDestroy();
      });
    });
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk.toString();
      if (text.includes("\r\n\r\n")) socket.destroy();
    });
    socket.on("end", () => socket.destroy());
    socket.on("close", () => resolve(text));
    socket.on("error", reject);
  });
}

test("a body that nests deeper than anything of ours is refused before somebody walks it", async () => {
  const nested = (levels: number): string => `{"values":{"A":${"[".repeat(levels)}${"]".repeat(levels)}}}`;
  expect((await put("/v1/settings/deep", nested(98))).status).toBe(201);
  for (const levels of [99, 5_000, 400_000]) {
    expect(await put("/v1/settings/deep", nested(levels))).toEqual({
      status: 400,
      detail: "the body nests deeper than 100 levels",
    });
  }
  expect(errors).toEqual([]);
});

test("a name that would be dropped in silence is refused, in bodies and queries", async () => {
  for (const [path, body] of [
    ["/v1/settings/proto", '{"values":{"__proto__":1}}'],
    ["/v1/settings/proto", '{"values":{"A":[{"__proto__":1}]}}'],
    ["/v1/services/proto", '{"split":{"__proto__":100}}'],
    ["/v1/services/proto?__proto__=1", "{}"],
  ] as const)
    expect([path, (await put(path, body)).status]).toEqual([path, 400]);
});

test("bytes that are not UTF-8 are refused, not stored as something else", async () => {
  const body = new Uint8Array([...new TextEncoder().encode('{"owner":"caf'), 0xe9, ...new TextEncoder().encode('"}')]);
  expect((await put("/v1/services/latin", body)).status).toBe(400);
  expect((await put("/v1/services/latin", '{"owner":"café 🚀"}')).status).toBe(201);
});

test("nonsense in Host makes no error of ours", async () => {
  for (const host of ["[", "x:99999", "a b", ""])
    expect(await raw(`GET /livez HTTP/1.1\r\nHost: ${host}\r\n\r\n`)).toStartWith("HTTP/1.1 200 OK");
  expect(errors).toEqual([]);
});

test("a caller that goes away in the middle of its body writes nothing and is no error of ours", async () => {
  const head = "PUT /v1/services/half HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
  for (const end of ["half-close", "reset"] as const) {
    await raw(`${head}Content-Length: 20\r\n\r\n{"ow`, end);
    await raw(`${head}Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n`, end);
  }
  expect((await fetch(new URL("/v1/services/half", atlas.url))).status).toBe(404);
  expect(errors).toEqual([]);
});

test("a web page of elsewhere is refused, whatever it calls this address", async () => {
  const asked = async (origin: string): Promise<unknown> => {
    const response = await fetch(new URL("/v1/services/page", atlas.url), {
      method: "PUT",
      headers: { ...json, origin },
      body: "{}",
    });
    return [response.status, ((await response.json()) as { code?: string }).code];
  };
  for (const origin of ["http://evil.example:7400", "https://localhost.evil.example", "null", "http://10.0.0.1"])
    expect([origin, await asked(origin)]).toEqual([origin, [403, "forbidden"]]);
  for (const origin of ["http://localhost:3000", "http://127.0.0.1:7400", "http://[::1]:7400"])
    expect([origin, await asked(origin)]).toEqual([origin, [expect.any(Number), undefined]]);
});

test("a path without the name at its end is no path", async () => {
  const response = await fetch(new URL("/v1/services/", atlas.url));
  expect([response.status, response.headers.get("allow")]).toEqual([404, null]);
});

test("a data directory that somebody removes is told at once, by answers and log, and reads go on", async () => {
  expect((await put("/v1/services/kept", "{}")).status).toBe(201);
  await rm(directory, { recursive: true });
  for (const _ of [1, 2]) expect((await put("/v1/services/lost", "{}")).status).toBe(503);
  expect(errors).toEqual([expect.stringContaining("deleted, moved or replaced")]);
  expect((await fetch(new URL("/v1/services/kept", atlas.url))).status).toBe(200);
  expect((await fetch(new URL("/v1/services/lost", atlas.url))).status).toBe(404);
});
