// Atlas over HTTP, in this process: what its callers may rely on.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errorCode } from "../core/lib/errors.ts";
import { readSse, type SseEvent } from "../core/lib/sse.ts";
import { auditSchema, infoSchema, settingsHistorySchema } from "../core/model/answers.ts";
import { deltaSchema, snapshotSchema } from "../core/model/snapshot.ts";
import { type RunningAtlas, startAtlas } from "./atlas.ts";
import { MAX_BODY_BYTES } from "./body.ts";
import { changeSchema, portWrittenSchema, problemSchema, serviceSchema, writtenSchema } from "./schemas.ts";

let directory: string;
let atlas: RunningAtlas;
const streams: AbortController[] = [];

// one Atlas for all: tests use services and hosts of their own
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-atlas-"));
  atlas = await startAtlas({ listen: { host: "127.0.0.1", port: 0 }, realm: "local", dataDir: directory });
});
afterAll(async () => {
  await atlas.stop();
  await rm(directory, { recursive: true, force: true });
});
afterEach(() => {
  for (const stream of streams.splice(0)) stream.abort();
});

let service: string;
let count = 0;
beforeEach(() => {
  count += 1;
  service = `service-${count}`;
});

type Answer = { readonly status: number; readonly headers: Headers; readonly body: Record<string, unknown> };

async function ask(
  method: string,
  path: string,
  body?: unknown,
  headers: Readonly<Record<string, string>> = {},
): Promise<Answer> {
  const response = await fetch(new URL(path, atlas.url), {
    method,
    headers: { ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  return { status: response.status, headers: response.headers, body: (await response.json()) as Answer["body"] };
}

/** A problem's status, code and fields, after checking that it is one. */
function problem({ status, headers, body }: Answer): unknown {
  expect(headers.get("content-type")).toBe("application/problem+json");
  const parsed = problemSchema.parse(body);
  expect(parsed.status).toBe(status);
  expect(headers.get("x-request-id")).toBe(parsed.requestId);
  return [status, parsed.code, ...(parsed.errors?.map(({ path }) => path) ?? [])];
}

/** Opens a watch; `next` waits for the next event of a kind. */
async function watch(query = "", headers: Readonly<Record<string, string>> = {}) {
  const ending = new AbortController();
  streams.push(ending);
  const response = await fetch(new URL(`/v1/watch${query}`, atlas.url), { headers, signal: ending.signal });
  if (!response.ok || response.body === null) throw new Error(`watch: ${response.status} ${await response.text()}`);
  const events = readSse(response.body);
  const next = async (...kinds: string[]): Promise<SseEvent & { json: Record<string, unknown> }> => {
    for (;;) {
      const { value, done } = await events.next();
      if (done) throw new Error("the stream ended");
      if (kinds.length > 0 && !kinds.includes(value.event)) continue;
      return { ...value, json: JSON.parse(value.data) as Record<string, unknown> };
    }
  };
  return { response, next, close: () => ending.abort() };
}

describe("services", () => {
  test("are defined with every default filled in, and listed with counts", async () => {
    const created = await ask("PUT", `/v1/services/${service}`, { owner: "core" });
    expect(created.status).toBe(201);
    expect(writtenSchema.parse(created.body).changed).toBe(true);
    expect((await ask("PUT", `/v1/services/${service}`, { owner: "core" })).status).toBe(200);
    await ask("PUT", `/v1/services/${service}/instances/a`, { port: 5000, healthy: true });
    await ask("PUT", `/v1/services/${service}/instances/b`, { port: 5000, enabled: false });
    const { body } = await ask("GET", `/v1/services/${service}`);
    expect(serviceSchema.parse(body).definition).toMatchObject({
      owner: "core",
      healthcheck: { path: "/healthcheck", intervalMs: 2000, timeoutMs: 1000, rise: 2, fall: 3 },
      timeouts: { connectMs: 300, queueMs: 1000, requestMs: 30_000 },
      balance: "random",
      retries: 3,
    });
    const list = (await ask("GET", "/v1/services")).body as unknown as Record<string, unknown>[];
    expect(list.find((one) => one.service === service)).toEqual({
      service,
      owner: "core",
      instances: 2,
      enabled: 1,
      healthy: 1,
    });
  });

  test("go only without instances, or by force", async () => {
    await ask("PUT", `/v1/services/${service}/instances/a`, { port: 5000 });
    expect(problem(await ask("DELETE", `/v1/services/${service}`))).toEqual([409, "conflict"]);
    const removed = await ask("DELETE", `/v1/services/${service}?force=true`);
    expect([removed.status, writtenSchema.parse(removed.body).changed]).toEqual([200, true]);
    expect(problem(await ask("GET", `/v1/services/${service}`))).toEqual([404, "not_found"]);
    const again = await ask("DELETE", `/v1/services/${service}`);
    expect(again.body).toEqual({ ...removed.body, changed: false });
  });

  test("published by themselves leave operators' edits alone", async () => {
    await ask("PUT", `/v1/services/${service}?publish=true`, { retries: 1, owner: "core" });
    await ask("PUT", `/v1/services/${service}`, { retries: 5, owner: "core" });
    await ask("PUT", `/v1/services/${service}?publish=true`, { retries: 2, owner: "money" });
    expect((await ask("GET", `/v1/services/${service}`)).body.definition).toMatchObject({ retries: 5, owner: "money" });
  });
});

describe("instances", () => {
  test("are new, then the same, then changed, and moved revisions say which", async () => {
    const path = `/v1/services/${service}/instances/host001:5000`;
    const first = await ask("PUT", path, { port: 5000 });
    const same = await ask("PUT", path, { port: 5000 });
    const changed = await ask("PATCH", path, { enabled: false });
    expect([first.status, same.status, changed.status]).toEqual([201, 200, 200]);
    expect(same.body).toEqual({ ...first.body, changed: false });
    expect(changed.body.revision).toBe((first.body.revision as number) + 1);
    expect((await ask("GET", path)).body).toEqual({
      id: `${service}/host001:5000`,
      service,
      instance: "host001:5000",
      host: "host001",
      address: "host001",
      port: 5000,
      enabled: false,
      healthy: null,
      draining: false,
      weight: 100,
      zone: "",
      version: "",
      agent: null,
    });
    const removed = await ask("DELETE", path);
    expect(writtenSchema.parse(removed.body)).toMatchObject({ changed: true });
    expect((await ask("DELETE", path)).body).toEqual({ ...removed.body, changed: false });
  });

  test("may have an IPv6 host", async () => {
    const path = `/v1/services/${service}/instances/${encodeURIComponent("[::1]:5000")}`;
    expect((await ask("PUT", path, { port: 5000 })).status).toBe(201);
    expect((await ask("GET", path)).body).toMatchObject({ host: "::1", address: "::1", instance: "[::1]:5000" });
  });
});

describe("bad input", () => {
  test("is refused with every bad field named, and changes nothing", async () => {
    const before = (await ask("GET", "/v1/info")).body.revision;
    const instance = `/v1/services/${service}/instances/a`;
    const cases: [Answer, unknown[]][] = [
      [await ask("PUT", instance, { port: 0, wight: 3, zone: 7 }), [400, "invalid", "port", "zone", "wight"]],
      [await ask("PUT", instance, {}), [400, "invalid", "port"]],
      [await ask("PUT", instance), [400, "invalid", "port"]],
      [await ask("PUT", instance, [1]), [400, "invalid", ""]],
      [await ask("PUT", instance, "{port: 5000}"), [400, "invalid", ""]],
      [await ask("PUT", instance, { port: 5000, weight: 257 }), [400, "invalid", "weight"]],
      [await ask("PATCH", instance, {}), [400, "invalid", ""]],
      [await ask("PATCH", instance, { port: 1 }), [400, "invalid", "port", ""]],
      [
        await ask("PUT", `/v1/services/${service}`, { healthcheck: { path: "x y" } }),
        [400, "invalid", "healthcheck.path"],
      ],
      [
        await ask("PUT", `/v1/services/${service}`, { timeouts: { reqestMs: 1 } }),
        [400, "invalid", "timeouts.reqestMs"],
      ],
      [await ask("PUT", `/v1/services/${service}`, { localPort: 6379 }), [400, "invalid", "localPort"]],
      [await ask("PUT", "/v1/services/Identity", {}), [400, "invalid", "service"]],
      [await ask("PUT", `/v1/services/${service}/instances/a:0`, { port: 1 }), [400, "invalid", "instance"]],
      [await ask("PUT", `${instance}?wiat=applied`, { port: 1 }), [400, "invalid", "wiat"]],
      [await ask("PUT", `${instance}?wait=done`, { port: 1 }), [400, "invalid", "wait"]],
      [await ask("PUT", `${instance}?wait=applied&timeout=soon`, { port: 1 }), [400, "invalid", "timeout"]],
      [await ask("PUT", `${instance}?wait=applied&wait=applied`, { port: 1 }), [400, "invalid"]],
      [await ask("DELETE", `/v1/services/${service}?force=yes`), [400, "invalid", "force"]],
      [await ask("PUT", `/v1/settings/${service}`, { values: { "a b": 1 } }), [400, "invalid", "values.a b"]],
      [await ask("PUT", `/v1/settings/${service}`, { A: 1 }), [400, "invalid", "values", "A"]],
      [await ask("POST", "/v1/ports", { service: "9" }), [400, "invalid", "service"]],
      [await ask("GET", "/v1/watch?service=A"), [400, "invalid", "service.0"]],
      [await ask("GET", "/v1/watch?agent=host001"), [400, "invalid", "boot"]],
      [await ask("GET", "/v1/audit?limit=0"), [400, "invalid", "limit"]],
      [await ask("GET", "/v1/changes/x"), [400, "invalid", "revision"]],
      [await ask("POST", "/v1/agents/host001/acks", { revision: -1 }), [400, "invalid", "generation", "revision"]],
    ];
    for (const [answer, expected] of cases) expect(problem(answer)).toEqual(expected);
    expect((await ask("GET", "/v1/info")).body.revision).toBe(before);
  });

  test("of the wrong type or too large is refused before it is read", async () => {
    const path = `/v1/services/${service}`;
    expect(problem(await ask("PUT", path, "owner=core", { "content-type": "text/plain" }))).toEqual([
      415,
      "wrong_type",
    ]);
    expect((await ask("PUT", path, "{}", { "content-type": "application/json; charset=utf-8" })).status).toBe(201);
    const large = JSON.stringify({ description: "x".repeat(MAX_BODY_BYTES) });
    expect(problem(await ask("PUT", path, large))).toEqual([413, "too_large"]);
    const chunked = await fetch(new URL(path, atlas.url), {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: new ReadableStream({
        start(controller) {
          for (let sent = 0; sent < 20; sent += 1) controller.enqueue(new Uint8Array(100_000).fill(32));
          controller.close();
        },
      }),
    });
    expect(chunked.status).toBe(413);
  });

  test("to an unknown place or with a method it does not know is a 404 that says so", async () => {
    expect(problem(await ask("GET", "/v1/nothing"))).toEqual([404, "not_found"]);
    for (const reserved of ["/", "/v1/deploys", "/v1/tests"])
      expect(problem(await ask("GET", reserved))).toEqual([404, "not_found"]);
    const wrong = await ask("PATCH", `/v1/services/${service}`, {});
    expect(problem(wrong)).toEqual([404, "not_found"]);
    expect(wrong.headers.get("allow")).toBe("PUT, GET, DELETE");
    expect(problem(await ask("PATCH", `/v1/services/${service}/instances/a`, { weight: 1 }))).toEqual([
      404,
      "not_found",
    ]);
  });
});

describe("request ids", () => {
  test("are the caller's when harmless, else new, on every answer", async () => {
    const id = async (path: string, given?: string) =>
      (await ask("GET", path, undefined, given === undefined ? {} : { "x-request-id": given })).headers.get(
        "x-request-id",
      );
    expect(await id("/v1/info", "abc-1")).toBe("abc-1");
    expect(await id("/v1/nothing", "abc-2")).toBe("abc-2");
    expect(await id("/v1/info", "a b")).toMatch(/^[0-9a-f-]{36}$/);
    expect(await id("/v1/info")).toMatch(/^[0-9a-f-]{36}$/);
    const { response } = await watch("", { "x-request-id": "abc-3" });
    expect(response.headers.get("x-request-id")).toBe("abc-3");
  });
});

describe("watching", () => {
  test("sends a snapshot, then deltas, and resumes after either kind of position", async () => {
    const first = await watch();
    const snapshot = await first.next();
    expect(snapshot.event).toBe("snapshot");
    expect(snapshotSchema.parse(snapshot.json).realm).toBe("local");
    await ask("PUT", `/v1/services/${service}/instances/a`, { port: 5000 });
    let delta = await first.next("delta");
    while (deltaSchema.parse(delta.json).instances.put.length === 0) delta = await first.next("delta");
    expect(first.response.headers.get("content-type")).toBe("text/event-stream");

    const id = snapshot.id ?? "";
    for (const resumed of [await watch("", { "last-event-id": id }), await watch(`?since=${id}`)]) {
      const event = await resumed.next();
      expect(event.event).toBe("delta");
      const { since, revision, instances } = deltaSchema.parse(event.json);
      expect(since).toBe(snapshot.json.revision as number);
      expect(revision).toBe(delta.json.revision as number);
      expect(instances.put.map((instance) => instance.id)).toEqual([`${service}/a`]);
    }
    for (const position of ["1.0", "nonsense", "99999999999999999.1"]) {
      const event = await (await watch("", { "last-event-id": position })).next();
      expect([position, event.event]).toEqual([position, "snapshot"]);
    }
  });

  test("an open stream whose reader goes away is forgotten, its lease too", async () => {
    const stream = await watch(`?agent=${service}&boot=1`);
    const connected = async () => {
      const agents = (await ask("GET", "/v1/agents")).body as unknown as { host: string; connected: boolean }[];
      return agents.find(({ host }) => host === service)?.connected;
    };
    expect(await connected()).toBe(true);
    stream.close();
    while (await connected()) await Bun.sleep(5);
    expect(await connected()).toBe(false);
  });

  test("a HEAD holds neither stream nor lease", async () => {
    const response = await fetch(new URL(`/v1/watch?agent=${service}&boot=1`, atlas.url), { method: "HEAD" });
    expect([response.status, response.headers.get("content-type")]).toEqual([200, "text/event-stream"]);
    const agents = (await ask("GET", "/v1/agents")).body as unknown as { host: string }[];
    expect(agents.some(({ host }) => host === service)).toBe(false);
  });

  test("settings arrive with the stream and with every change", async () => {
    const stream = await watch(`?service=${service}&settings=${service}`);
    expect((await stream.next("settings")).json).toEqual({ service, version: 0, values: {} });
    await ask("PUT", `/v1/settings/${service}`, { values: { A: 1 } });
    expect((await stream.next("settings")).json).toEqual({ service, version: 1, values: { A: 1 } });
  });
});

describe("agents", () => {
  const ack = (host: string, body: object) => ask("POST", `/v1/agents/${host}/acks`, body);

  test("hold their host's lease: a second boot is refused, acks count, a forgotten one is gone", async () => {
    const host = `host-${service}`;
    const stream = await watch(`?agent=${host}&boot=1&zone=z1&version=1.2.3`);
    const refused = await fetch(new URL(`/v1/watch?agent=${host}&boot=2`, atlas.url));
    expect(refused.status).toBe(409);
    expect(problemSchema.parse(await refused.json()).code).toBe("conflict");

    const { generation, revision } = infoSchema.parse((await ask("GET", "/v1/info")).body);
    const rejected = [{ service, error: "line 9" }];
    const acked = await ack(host, { generation, revision, rejected, reloaded: true, tookMs: 12.5 });
    expect([acked.status, acked.body]).toEqual([200, { generation, revision }]);
    const agents = (await ask("GET", "/v1/agents")).body as unknown as Record<string, unknown>[];
    expect(agents.find((agent) => agent.host === host)).toEqual({
      host,
      zone: "z1",
      version: "1.2.3",
      connected: true,
      appliedRevision: revision,
      lag: 0,
      rejected,
    });
    expect(problem(await ask("DELETE", `/v1/agents/${host}`))).toEqual([409, "conflict"]);
    expect(problem(await ack(`other-${host}`, { generation, revision }))).toEqual([404, "not_found"]);
    stream.close();
    let forgotten = await ask("DELETE", `/v1/agents/${host}`);
    while (forgotten.status === 409) forgotten = await ask("DELETE", `/v1/agents/${host}`);
    expect(writtenSchema.parse(forgotten.body)).toMatchObject({ changed: true });
    expect((await ask("DELETE", `/v1/agents/${host}`)).body).toMatchObject({ changed: false });
  });

  test("a write that waits answers when all have applied it, when one refuses, or when time is over", async () => {
    const host = `host-${service}`;
    const stream = await watch(`?agent=${host}&boot=1`);
    const others = (await ask("GET", "/v1/agents")).body as unknown as { host: string }[];
    // agents of other tests may be in their grace: take them out, so that only this one counts
    for (const other of others) if (other.host !== host) await ask("DELETE", `/v1/agents/${other.host}`);
    const path = `/v1/services/${service}/instances/a?wait=applied`;

    const applied = ask("PUT", path, { port: 5000 });
    let delta = await stream.next("delta");
    while (deltaSchema.parse(delta.json).instances.put.length === 0) delta = await stream.next("delta");
    expect(delta.json.ack).toBe(true);
    const { generation, revision } = deltaSchema.parse(delta.json);
    await ack(host, { generation, revision });
    const answer = await applied;
    expect([answer.status, answer.body]).toEqual([201, { generation, revision, changed: true, applied: 1, total: 1 }]);
    expect((await ask("PUT", path, { port: 5000 })).body).toMatchObject({ changed: false, applied: 1, total: 1 });

    const refused = ask("PATCH", path, { weight: 1 });
    const second = deltaSchema.parse((await stream.next("delta")).json);
    await ack(host, { ...second, rejected: [{ service, error: "line 9" }] });
    const refusal = await refused;
    expect(problem(refusal)).toEqual([409, "rejected"]);
    expect(refusal.body).toMatchObject({ revision: second.revision, rejected: [{ host, service, error: "line 9" }] });
    const changes = await ask("GET", `/v1/changes/${second.revision}`);
    expect(changeSchema.parse(changes.body)).toEqual({
      revision: second.revision,
      applied: 0,
      total: 1,
      pending: [],
      unreachable: [],
      rejected: [{ host, service, error: "line 9" }],
    });

    const late = await ask("PATCH", `${path}&timeout=50ms`, { weight: 2 });
    expect(problem(late)).toEqual([504, "not_applied"]);
    expect(late.body).toMatchObject({ pending: [host], unreachable: [], revision: second.revision + 1 });
    expect((await ask("GET", `/v1/services/${service}/instances/a`)).body.weight).toBe(2);
    stream.close();
    let gone = await ask("DELETE", `/v1/agents/${host}`);
    while (gone.status === 409) gone = await ask("DELETE", `/v1/agents/${host}`);
  });
});

describe("settings", () => {
  test("have an ETag, and If-Match guards them", async () => {
    const path = `/v1/settings/${service}`;
    const none = await ask("GET", path);
    expect([none.headers.get("etag"), none.body]).toEqual(['"0"', { service, version: 0, values: {} }]);
    const created = await ask("PUT", path, { values: { A: 1, B: { c: [null] } } }, { "if-match": '"0"' });
    expect([created.status, created.headers.get("etag"), created.body.version]).toEqual([201, '"1"', 1]);
    const stale = await ask("PUT", path, { values: {} }, { "if-match": '"0"' });
    expect([problem(stale), stale.headers.get("etag")]).toEqual([[412, "stale"], '"1"']);
    expect(problem(await ask("PUT", path, { values: {} }, { "if-match": "W/x" }))).toEqual([400, "invalid"]);
    const changed = await ask("PUT", path, { values: { A: 2 } }, { "if-match": '"1"' });
    expect([changed.status, changed.headers.get("etag")]).toEqual([200, '"2"']);
    expect((await ask("PUT", path, { values: { A: 2 } })).body).toMatchObject({ changed: false, version: 2 });
    expect(changed.body.revision).toBe(created.body.revision as number);
    const removed = await ask("DELETE", path);
    expect([removed.status, removed.body.version]).toEqual([200, 3]);
    const history = settingsHistorySchema.parse((await ask("GET", `${path}/history`)).body);
    expect(history.map(({ version, values }) => [version, values])).toEqual([
      [3, {}],
      [2, { A: 2 }],
      [1, { A: 1, B: { c: [null] } }],
    ]);
    expect(await ask("GET", `${path}/history?limit=1`)).toMatchObject({ body: [{ version: 3 }] });
  });
});

describe("ports", () => {
  test("are reserved once, told again, listed and released", async () => {
    const reserved = await ask("POST", "/v1/ports", { service });
    expect(reserved.status).toBe(201);
    const { port } = portWrittenSchema.parse(reserved.body);
    expect(port).toBeGreaterThanOrEqual(5000);
    const again = await ask("POST", "/v1/ports", { service });
    expect([again.status, again.body.port]).toEqual([200, port]);
    const list = (await ask("GET", "/v1/ports")).body as unknown as object[];
    expect(list).toContainEqual({ service, port });
    expect(writtenSchema.parse((await ask("DELETE", `/v1/ports/${service}`)).body).changed).toBe(true);
    expect((await ask("DELETE", `/v1/ports/${service}`)).body.changed).toBe(false);
  });
});

describe("the audit trail", () => {
  test("says who, from where and why", async () => {
    await ask("PUT", `/v1/services/${service}/instances/a?reason=try`, { port: 5000, agent: "host001" });
    await ask("DELETE", `/v1/services/${service}/instances/a`);
    const [removed, put, defined] = auditSchema.parse((await ask("GET", "/v1/audit?limit=3")).body);
    expect(defined).toMatchObject({ kind: "service.put", target: service, before: null });
    expect(put).toMatchObject({
      kind: "instance.put",
      target: `${service}/a`,
      who: "host001",
      from: "127.0.0.1",
      reason: "try",
      before: null,
      after: { port: 5000 },
    });
    expect(removed).toMatchObject({ kind: "instance.delete", who: "anonymous", before: { port: 5000 }, after: null });
  });
});

describe("health", () => {
  test("info, probes and metrics answer", async () => {
    expect(infoSchema.parse((await ask("GET", "/v1/info")).body)).toMatchObject({ realm: "local", store: "embedded" });
    expect((await ask("GET", "/livez")).status).toBe(200);
    expect((await ask("GET", "/readyz")).body).toEqual({ status: "ready", degraded: [] });
    expect((await ask("GET", "/healthcheck")).body).toMatchObject({ status: "success", results: [{ passed: true }] });
    const metrics = await (await fetch(new URL("/metrics", atlas.url))).text();
    expect(metrics).toContain("smartstack_atlas_revision ");
    expect(metrics).toContain('path="/v1/services/{service}"');
  });

  test("HTTP/1.0 without Host is answered too: that is how HAProxy asks by default", async () => {
    expect(await raw("GET /healthcheck HTTP/1.0\r\n\r\n")).toStartWith("HTTP/1.1 200 OK");
    expect(await raw("GET /v1/nothing?x HTTP/1.0\r\n\r\n")).toStartWith("HTTP/1.1 404");
  });

  function raw(request: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const { hostname, port } = new URL(atlas.url);
      const socket = connect(Number(port), hostname, () => socket.write(request));
      let text = "";
      socket.on("data", (chunk) => {
        text += chunk.toString();
        if (text.includes("\r\n\r\n")) socket.destroy();
      });
      socket.on("close", () => resolve(text));
      socket.on("error", reject);
    });
  }
});

describe("starting and stopping", () => {
  const start = (dataDir: string, port = 0) =>
    startAtlas({ listen: { host: "127.0.0.1", port }, realm: "local", dataDir });
  const refusal = async (starting: Promise<RunningAtlas>): Promise<string | undefined> => {
    try {
      await (await starting).stop();
    } catch (error) {
      return errorCode(error);
    }
    return undefined;
  };

  test("a busy port is said, and nothing half-started keeps the data directory", async () => {
    const other = await mkdtemp(join(tmpdir(), "smartstack-atlas-"));
    expect(await refusal(start(other, Number(new URL(atlas.url).port)))).toBe("address_in_use");
    expect(await refusal(start(other))).toBeUndefined();
    await rm(other, { recursive: true });
  });

  test("a data directory in use, or one that is a file, is refused", async () => {
    expect(await refusal(start(directory))).toBe("store_locked");
    const file = join(directory, "file");
    await writeFile(file, "");
    expect(await refusal(start(file))).toBe("store_unreadable");
  });

  test("stopping ends streams with a reason and waits with a problem, and what was written is there again", async () => {
    const other = await mkdtemp(join(tmpdir(), "smartstack-atlas-"));
    const first = await start(other);
    const stream = await fetch(new URL("/v1/watch?agent=a&boot=1", first.url));
    const put = (query: string) =>
      fetch(new URL(`/v1/services/${service}/instances/a${query}`, first.url), {
        method: "PUT",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ port: 5000, weight: query.length }),
      });
    await put("");
    const waiting = put("?wait=applied");
    // the write stands, its answer waits
    while (((await (await fetch(new URL("/v1/info", first.url))).json()) as { revision: number }).revision < 3)
      continue;
    await Promise.all([first.stop(), first.stop()]);
    expect(await first.ended).toBeUndefined();
    expect((await waiting).status).toBe(503);
    expect(await stream.text()).toEndWith('event: end\ndata: {"reason":"Atlas is stopping"}\n\n');
    expect(await fetch(first.url).catch((error: unknown) => errorCode(error))).toMatch(
      /ECONNREFUSED|ConnectionRefused/,
    );

    const second = await start(other);
    const again = (await (await fetch(new URL(`/v1/services/${service}`, second.url))).json()) as {
      instances: unknown[];
    };
    expect(again.instances).toMatchObject([{ weight: 13 }]);
    await second.stop();
    await rm(other, { recursive: true });
  });
});
