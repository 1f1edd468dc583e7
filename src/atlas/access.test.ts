// Who is admitted to what. docs/security.md is the oracle: every route is asked by every role, without a token and with a wrong
// one, and a route without a line in the page's table fails.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLogger } from "../core/lib/logger.ts";
import { Access, ANYONE, type Caller, requireOwnInstance } from "./access.ts";
import { type RunningAtlas, startAtlas } from "./atlas.ts";
import { createMetrics } from "../core/lib/metrics.ts";
import { createWorld } from "./fixture.ts";
import { Propagation } from "./propagation.ts";
import { healthRoutes } from "./routes-health.ts";
import { Secrets } from "./secrets.ts";
import { hashToken, type Role, ROLES, type Token } from "./tokens.ts";

const HOST = "Host001.example";
const tokenOf = (name: string, role: Role): Token => ({
  role,
  name,
  hash: hashToken(`secret-${name}`),
  ...(role === "agent" ? { host: HOST } : {}),
});
const PEER = "p".repeat(32);

let tokens: readonly Token[] = ROLES.map((role) => tokenOf(role, role));
let directory: string;
let atlas: RunningAtlas;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-atlas-"));
  atlas = await startAtlas({
    listen: { host: "127.0.0.1", port: 0 },
    realm: "local",
    store: { kind: "embedded", dataDir: directory },
    secrets: { tokens: () => tokens, peerTokens: () => [PEER, "q".repeat(32)] },
  });
});
afterAll(async () => {
  await atlas.stop();
  await rm(directory, { recursive: true, force: true });
});

type Answer = { readonly status: number; readonly headers: Headers; readonly detail: string };

async function ask(method: string, path: string, token?: string, body?: unknown): Promise<Answer> {
  const response = await fetch(new URL(path, atlas.url), {
    method,
    headers: {
      ...(body === undefined ? {} : { "content-type": "application/json" }),
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const { status, headers } = response;
  if (status === 200 && headers.get("content-type") === "text/event-stream") {
    await response.body?.cancel();
    return { status, headers, detail: "" };
  }
  const text = await response.text();
  const problem = headers.get("content-type") === "application/problem+json" ? JSON.parse(text) : {};
  return { status, headers, detail: String(problem.detail ?? "") };
}

type Row = { readonly method: string; readonly path: string; readonly cells: readonly string[] };

const page = await readFile(join(import.meta.dir, "../../docs/security.md"), "utf8");
const COLUMNS = ["no token", ...ROLES];
const table: readonly Row[] = [...page.matchAll(/^\| `([A-Z]+) (\/\S*)` \|(.*)\|$/gm)].map(
  ([, method = "", path = "", rest = ""]) => ({ method, path, cells: rest.split("|").map((cell) => cell.trim()) }),
);

/** A request as the host's own agent would make it; of what it asks for nothing need be there. */
function requestOf({ method, path }: Row): { path: string; body?: unknown } {
  const [bare = "", query = ""] = path.split("?");
  const filled = bare
    .replace("{service}", "identity")
    .replace("{instance}", `${HOST.toLowerCase()}:5000`)
    .replace("{host}", HOST.toLowerCase())
    .replace("{revision}", "1");
  const asked = query.replace("{host}", `${HOST.toLowerCase()}&boot=1`);
  const own = bare.endsWith("/{instance}") && method !== "PUT" && method !== "GET" ? `agent=${HOST}` : "";
  const search = [asked, own].filter((part) => part !== "").join("&");
  const body =
    method === "PUT" && bare.endsWith("/{instance}")
      ? { port: 5000, agent: HOST }
      : { PUT: {}, PATCH: { draining: true }, POST: { generation: 1, revision: 1 } }[method];
  return { path: search === "" ? filled : `${filled}?${search}`, ...(body === undefined ? {} : { body }) };
}

describe("the table of docs/security.md", () => {
  test("has every route there is, and no other", async () => {
    expect(page).toContain(`| request | ${COLUMNS.join(" | ")} |`);
    const document = (await (await fetch(new URL("/openapi.json", atlas.url))).json()) as {
      paths: Record<string, Record<string, unknown>>;
    };
    const routes = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    const described = new Set(table.map(({ method, path }) => `${method} ${path.split("?")[0]}`));
    expect([...described].sort()).toEqual(routes.sort());
  });

  test.each(table.map((row) => [`${row.method} ${row.path}`, row] as const))("%s", async (_, row) => {
    const { path, body } = requestOf(row);
    const isPeers = row.path.startsWith("/v1/peer/");
    const wrong = await ask(row.method, path, "smst_nobody_knows_me", body);
    const open = (row.cells[0] ?? "").startsWith("yes");
    expect(wrong.status === 401).toBe(!open);
    if (!open) expect(wrong.headers.get("www-authenticate")).toBe('Bearer realm="smartstack", error="invalid_token"');
    for (const [index, column] of COLUMNS.entries()) {
      const token = column === "no token" ? undefined : `secret-${column}`;
      const { status, headers, detail } = await ask(row.method, path, token, body);
      const admitted = row.cells[index] !== "";
      const refused = [401, 403].includes(status);
      expect([row.path, column, refused]).toEqual([row.path, column, !admitted]);
      if (column === "no token" && refused) expect(headers.get("www-authenticate")).toBe('Bearer realm="smartstack"');
      if (!refused || column === "no token" || isPeers) continue;
      expect([status, detail]).toEqual([
        403,
        expect.stringMatching(/needs the role .*; the token \w+ has the role \w+/),
      ]);
    }
    if (isPeers) {
      expect((await ask(row.method, path, PEER)).status).toBe(200);
      expect((await ask(row.method, path, "q".repeat(32))).status).toBe(200);
    } else if (!open) expect((await ask(row.method, path, PEER, body)).status).toBe(401);
    if (row.cells.includes("own host")) {
      const elsewhere = JSON.parse(JSON.stringify({ path, body }).replaceAll(new RegExp(HOST, "gi"), "host002")) as {
        path: string;
        body?: unknown;
      };
      const { status } = await ask(row.method, elsewhere.path, "secret-agent", elsewhere.body);
      expect([row.path, "another host", status]).toEqual([row.path, "another host", 403]);
    }
  });
});

describe("an agent's token", () => {
  const instance = (name: string, service = "billing"): string => `/v1/services/${service}/instances/${name}`;

  test("says for whom it speaks, and not what operators say", async () => {
    const own = instance(`${HOST}:5001`);
    const put = (body: unknown, path = own) => ask("PUT", path, "secret-agent", body);
    expect((await put({ port: 5001 })).detail).toContain(`agent=${HOST} is missing`);
    expect((await put({ port: 5001, agent: HOST, enabled: true })).detail).toContain("to say enabled needs");
    expect((await put({ port: 5001, agent: HOST.toUpperCase() })).status).toBe(201);
    expect((await ask("PATCH", own, "secret-agent", { healthy: true })).status).toBe(403);
    expect((await ask("PATCH", `${own}?agent=${HOST}`, "secret-agent", { enabled: false })).status).toBe(403);
    expect((await ask("PATCH", `${own}?agent=${HOST}`, "secret-agent", { healthy: true })).status).toBe(200);
    expect((await ask("DELETE", own, "secret-agent")).status).toBe(403);
    expect((await ask("PATCH", own, "secret-deploy", { enabled: false })).status).toBe(200);
  });

  test("writes instances of its own and those that bear its host's name, and nobody else's", async () => {
    const foreign = instance("host002:5000");
    expect((await ask("PUT", foreign, "secret-agent", { port: 5000, agent: HOST })).status).toBe(403);
    expect((await ask("PUT", foreign, "secret-deploy", { port: 5000, agent: "host002" })).status).toBe(201);
    expect((await ask("PUT", foreign, "secret-agent", { port: 6000, agent: HOST })).status).toBe(403);
    expect((await ask("PATCH", `${foreign}?agent=${HOST}`, "secret-agent", { draining: true })).status).toBe(403);
    expect((await ask("DELETE", `${foreign}?agent=${HOST}`, "secret-agent")).status).toBe(403);
    // put by hand for this host: its agent takes it over
    const ours = instance(HOST.toLowerCase());
    expect((await ask("PUT", ours, "secret-admin", { port: 5002 })).status).toBe(201);
    expect((await ask("PUT", ours, "secret-agent", { port: 5002, agent: HOST })).status).toBe(200);
  });

  test("an instance with another name is its own when it owns it already", () => {
    const agent = { who: "t", from: "", confinedTo: "a" };
    const owned = { registration: { agent: "A" } } as never;
    expect(() => requireOwnInstance(agent, "odd:5000", owned)).not.toThrow();
    expect(() => requireOwnInstance(agent, "odd:5000", undefined)).toThrow("is not an instance of a");
    expect(() => requireOwnInstance({ who: "t", from: "" }, "odd:5000", undefined)).not.toThrow();
  });
});

test("the audit trail has the token's name", async () => {
  await ask("PUT", "/v1/services/audited", "secret-deploy", {});
  const response = await fetch(new URL("/v1/audit?limit=1", atlas.url), {
    headers: { authorization: "bearer secret-read" },
  });
  expect(await response.json()).toMatchObject([{ who: "deploy", target: "audited" }]);
});

test.each(["", "secret-admin", "Basic secret-admin", "Bearer", "Bearer secret-admin more", "Bearer  "])(
  "the header %p is no token",
  async (authorization) => {
    const { status } = await fetch(new URL("/v1/info", atlas.url), { headers: { authorization } });
    expect(status).toBe(401);
  },
);

test("a stream whose token is gone, or has another role, ends with a reason; all others go on", async () => {
  const open = async (token: string, query = "") => {
    const ending = new AbortController();
    const response = await fetch(new URL(`/v1/watch${query}`, atlas.url), {
      headers: { authorization: `Bearer ${token}` },
      signal: ending.signal,
    });
    const reader = response.body?.getReader();
    await reader?.read();
    return { reader, close: () => ending.abort() };
  };
  const before = tokens;
  tokens = [...before, tokenOf("ann", "read"), tokenOf("bob", "read")];
  await atlas.reload();
  const streams = [
    await open("secret-ann"),
    await open("secret-bob"),
    await open("secret-agent", `?agent=${HOST}&boot=1`),
    await open("secret-read"),
  ];
  tokens = [...before, tokenOf("bob", "deploy")];
  await atlas.reload();
  const decoder = new TextDecoder();
  for (const { reader } of streams.slice(0, 2)) {
    let text = "";
    for (;;) {
      const { value, done } = (await reader?.read()) ?? { done: true };
      if (done) break;
      text += decoder.decode(value);
    }
    expect(text).toContain("event: end");
    expect(text).toContain("no longer good for it");
  }
  await ask("PUT", "/v1/services/still", "secret-deploy", {});
  for (const { reader, close } of streams.slice(2)) {
    const { value } = (await reader?.read()) ?? {};
    expect(decoder.decode(value)).toContain("still");
    close();
  }
  tokens = before;
  await atlas.reload();
});

test("a file that cannot be read leaves what was", async () => {
  const before = tokens;
  const errors: string[] = [];
  let broken = false;
  const secrets = new Secrets({
    tokens: () => {
      if (broken) throw new Error("tokens:3 is none");
      return before;
    },
    tlsCa: () => (broken ? "new" : "old"),
  });
  broken = true;
  secrets.reload(Object.assign(Object.create(silentLogger), { error: (text: string) => errors.push(text) }));
  expect(secrets.tokens).toBe(before);
  expect(secrets.tlsCa).toBe("new");
  expect(errors).toEqual([expect.stringContaining("tokens:3 is none")]);
});

test("who has no token hears that Atlas is degraded, and not why: reasons name hosts", async () => {
  const world = await createWorld();
  const parts = {
    ...world,
    degraded: () => ["host001 vanished"],
    replicas: () => 1,
    store: "embedded" as const,
    propagation: new Propagation(world.clock),
  };
  const ready = healthRoutes(parts, createMetrics(), []).find(({ path }) => path === "/readyz");
  const peer = { address: "", noIdleLimit: () => () => undefined };
  const said = async (caller: Caller) =>
    (await ready?.respond(new Request("http://x/readyz"), {}, peer, caller))?.json();
  expect(await said({ kind: "stranger" })).toEqual({ status: "ready", degraded: ["something; a token shows what"] });
  expect(await said(ANYONE)).toEqual({ status: "ready", degraded: ["host001 vanished"] });
  await world.dispose();
});

test("peers need no token where nobody does, and a token file closes them", () => {
  const peer = (known: ConstructorParameters<typeof Access>[0], header: string | null) => () =>
    new Access(known).admit("peer", header);
  expect(peer({ tokens: undefined, peerTokens: undefined }, null)()).toEqual({ kind: "anyone" });
  expect(peer({ tokens, peerTokens: undefined }, "Bearer secret-admin")).toThrow("--peer-token-file");
  expect(peer({ tokens: undefined, peerTokens: [PEER] }, null)).toThrow("only another replica");
  expect(peer({ tokens: undefined, peerTokens: [PEER] }, `Bearer ${PEER}`)()).toEqual({ kind: "peer" });
});
