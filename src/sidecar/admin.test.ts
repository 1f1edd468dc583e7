import { describe, expect, test } from "bun:test";
import { ProblemFault } from "../core/lib/http.ts";
import { silentLogger } from "../core/lib/logger.ts";
import { emptySnapshot } from "../core/model/snapshot.ts";
import { adminHandler, type AdminOptions, type Handler, socketHandler } from "./admin.ts";
import type { Agent, AgentStatus } from "./agent.ts";

function setup(status: Partial<AgentStatus> = {}) {
  const calls: unknown[][] = [];
  const written = { generation: 1, revision: 2, registered: true };
  const call =
    (name: string) =>
    async (...args: unknown[]) => {
      calls.push([name, ...args]);
      if (args[1] === "gone:1") throw new ProblemFault("not_found", "gone:1 is not an instance of this host");
      return written;
    };
  const agent = {
    locals: { put: call("put"), drain: call("drain"), remove: call("remove") },
    status: () => ({ atlas: { connected: true }, generation: 1, revision: 2, ready: true, troubles: [], ...status }),
    snapshot: () => emptySnapshot("local"),
    why: async (service: string) => {
      if (service === "bug") throw new Error("secret");
      return { service };
    },
    stop: async () => undefined,
  } as unknown as Agent;
  const options: AdminOptions = {
    agent,
    info: () => ({
      realm: "local",
      host: "here",
      address: "10.0.0.1",
      zone: "",
      version: "1",
      router: "http://127.0.0.1:4000",
      atlas: { connected: true },
      generation: 1,
      revision: 2,
    }),
    metrics: async () => "smartstack_x 1\n",
    logger: silentLogger,
    now: () => 1_000_000,
  };
  const admin = adminHandler(options, ["10.0.0.1", "here"], "/state/sidecar.sock");
  const socket = socketHandler(options);
  return { calls, admin, socket };
}

async function ask(handle: Handler, path: string, init: RequestInit & { host?: string } = {}) {
  const { host = "127.0.0.1:4001", ...rest } = init;
  const headers = new Headers(rest.headers);
  headers.set("host", host);
  const response = await handle(new Request(`http://127.0.0.1:4001${path}`, { ...rest, headers }));
  const text = await response.text();
  const json = response.headers.get("content-type")?.includes("json") === true;
  return { status: response.status, body: json ? (JSON.parse(text) as Record<string, unknown>) : { text } };
}
const json = (method: string, body: unknown): RequestInit => ({
  method,
  headers: { "content-type": "application/json" },
  body: JSON.stringify(body),
});

describe("the admin port", () => {
  test("answers what is asked", async () => {
    const { admin } = setup();
    expect(await ask(admin, "/livez")).toMatchObject({ status: 200 });
    expect(await ask(admin, "/readyz")).toMatchObject({ status: 200, body: { status: "ready" } });
    expect(await ask(admin, "/v1/info")).toMatchObject({ status: 200, body: { host: "here" } });
    expect(await ask(admin, "/v1/snapshot")).toMatchObject({ status: 200, body: { realm: "local", instances: [] } });
    expect(await ask(admin, "/v1/why/identity")).toMatchObject({ status: 200, body: { service: "identity" } });
    expect(await ask(admin, "/metrics")).toMatchObject({ status: 200, body: { text: "smartstack_x 1\n" } });
  });

  test("is not ready before HAProxy runs a snapshot, and says what is wrong", async () => {
    const { admin } = setup({ ready: false, troubles: ["not following Atlas: no"] });
    expect(await ask(admin, "/readyz")).toMatchObject({
      status: 503,
      body: { code: "unavailable", degraded: ["not following Atlas: no"] },
    });
    expect(await ask(admin, "/healthcheck")).toMatchObject({
      status: 500,
      body: { hostname: "here", status: "failure", results: [{ passed: false, expires: 1_009 }] },
    });
  });

  test("is ready, if degraded, while Atlas is away", async () => {
    const { admin } = setup({ troubles: ["not following Atlas: no"] });
    expect(await ask(admin, "/readyz")).toMatchObject({ status: 200, body: { degraded: ["not following Atlas: no"] } });
  });

  test("refuses writes", async () => {
    const { admin, calls } = setup();
    const answer = await ask(admin, "/v1/local/identity/here:5000", json("PUT", { port: 5000 }));
    expect(answer).toMatchObject({ status: 403, body: { code: "forbidden" } });
    expect(answer.body.detail).toContain("/state/sidecar.sock");
    expect(await ask(admin, "/v1/local/identity/here:5000", { method: "DELETE" })).toMatchObject({ status: 403 });
    expect(calls).toEqual([]);
  });

  test("answers to loopback names and its own address only", async () => {
    const { admin } = setup();
    for (const host of ["localhost:4001", "127.0.0.1", "[::1]:4001", "10.0.0.1:4001", "HERE:4001"]) {
      expect((await ask(admin, "/livez", { host })).status).toBe(200);
    }
    for (const host of ["evil.example.com", "127.0.0.1.evil.example.com:4001", "10.0.0.2:4001", "a b"]) {
      expect(await ask(admin, "/livez", { host })).toMatchObject({ status: 403, body: { code: "forbidden" } });
    }
  });

  test("refuses pages of other origins", async () => {
    const { admin } = setup();
    const from = (origin: string) => ask(admin, "/v1/snapshot", { headers: { origin } });
    expect((await from("http://127.0.0.1:4001")).status).toBe(200);
    expect((await from("https://evil.example.com")).status).toBe(403);
    expect((await from("null")).status).toBe(403);
  });

  test("says problems as problems, and keeps our bugs to the log", async () => {
    const { admin } = setup();
    expect(await ask(admin, "/nothing", { headers: { "x-request-id": "r1" } })).toMatchObject({
      status: 404,
      body: { code: "not_found", requestId: "r1" },
    });
    expect(await ask(admin, "/v1/why/Not%20a%20name")).toMatchObject({ status: 400, body: { code: "invalid" } });
    const bug = await ask(admin, "/v1/why/bug");
    expect(bug).toMatchObject({ status: 500, body: { code: "internal" } });
    expect(JSON.stringify(bug)).not.toContain("secret");
  });
});

describe("the socket", () => {
  test("takes instances, drains and deregistrations", async () => {
    const { socket, calls } = setup();
    const path = "/v1/local/identity/here%3A5000";
    expect(await ask(socket, path, json("PUT", { port: 5000 }))).toMatchObject({ status: 200, body: { revision: 2 } });
    await ask(socket, path, json("PATCH", { draining: true }));
    await ask(socket, `${path}?wait=applied&timeout=1500ms`, json("PATCH", { draining: true }));
    await ask(socket, `${path}?wait=applied`, json("PATCH", { draining: true }));
    await ask(socket, path, { method: "DELETE" });
    expect(calls).toEqual([
      ["put", "identity", "here:5000", { port: 5000, ttlMs: 30_000 }],
      ["drain", "identity", "here:5000", undefined],
      ["drain", "identity", "here:5000", 1_500],
      ["drain", "identity", "here:5000", 10_000],
      ["remove", "identity", "here:5000"],
    ]);
    expect(await ask(socket, "/v1/info")).toMatchObject({ status: 200 });
  });

  test.each([
    ["a bad port", "PUT", "identity/here:5000", { port: 0 }, 400],
    ["an unknown field", "PUT", "identity/here:5000", { port: 1, colour: "red" }, 400],
    ["a bad name", "PUT", "Identity/here:5000", { port: 1 }, 400],
    ["a definition that is none", "PUT", "identity/here:5000", { port: 1, definition: { retries: -1 } }, 400],
    ["an end of draining", "PATCH", "identity/here:5000", { draining: false }, 400],
    ["a bad wait", "PATCH", "identity/here:5000?wait=long", { draining: true }, 400],
    ["a bad timeout", "PATCH", "identity/here:5000?wait=applied&timeout=soon", { draining: true }, 400],
    ["a mistyped parameter", "PATCH", "identity/here:5000?wiat=applied", { draining: true }, 400],
    ["an instance that is not here", "DELETE", "identity/gone:1", {}, 404],
  ])("refuses %s", async (_, method, path, body, status) => {
    const { socket } = setup();
    expect(await ask(socket, `/v1/local/${path}`, json(method, body))).toMatchObject({ status });
  });

  test("refuses what is not JSON", async () => {
    const { socket } = setup();
    const send = (type: string, body: string) =>
      ask(socket, "/v1/local/identity/here:5000", { method: "PUT", headers: { "content-type": type }, body });
    expect(await send("text/plain", "{}")).toMatchObject({ status: 415, body: { code: "wrong_type" } });
    expect(await send("application/json", "{")).toMatchObject({ status: 400, body: { code: "invalid" } });
  });
});
