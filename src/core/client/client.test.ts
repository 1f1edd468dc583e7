import { describe, expect, spyOn, test } from "bun:test";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { z } from "zod";
import { createSmartClient } from "./client.ts";
import { runInContext } from "./context.ts";
import { SmartClientError } from "./error.ts";
import { type CallEvent, CHANNELS } from "./events.ts";
import { mockServices } from "./mock.ts";
import type { Fetch } from "./options.ts";

const echo = (request: Request): Response => {
  const { pathname, search } = new URL(request.url);
  return Response.json({
    method: request.method,
    path: pathname + search,
    headers: Object.fromEntries(request.headers),
  });
};
type Echo = { method: string; path: string; headers: Record<string, string> };

/** The error of a call that must fail. */
async function errorOf(call: PromiseLike<unknown>): Promise<SmartClientError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof SmartClientError) return error;
    throw error;
  }
  throw new Error("did not fail");
}

describe("a call", () => {
  test("goes to the router with the service's name in a header, and with trace, request id and the time it has", async () => {
    const { client, requests } = mockServices({ identity: echo });
    await client.get("service://identity/teams?a=1", { headers: { "X-Mine": "1" } });
    const [request] = requests;
    expect(request).toMatchObject({ service: "identity", method: "GET", path: "/teams?a=1" });
    expect(request?.headers.get("runscope-service")).toBe("identity");
    expect(request?.headers.get("x-mine")).toBe("1");
    expect(request?.headers.get("smartstack-timeout-ms")).toBe("2000");
    expect(request?.headers.get("traceparent")).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
    expect(request?.headers.get("x-request-id")).toMatch(/^[0-9a-f]{32}$/);
  });

  test("of each method is sent as that method", async () => {
    const { client, requests } = mockServices({ identity: echo });
    const url = "service://identity/x";
    await Promise.all([
      client.get(url),
      client.head(url),
      client.put(url, { json: {} }),
      client.delete(url),
      client.post(url, { json: {} }),
      client.patch(url, { json: {} }),
      client.request(url, { method: "options" }),
      client.request(new Request(url, { method: "PUT", body: "x" })),
    ]);
    expect(requests.map(({ method }) => method).sort()).toEqual(
      ["GET", "HEAD", "PUT", "DELETE", "POST", "PATCH", "OPTIONS", "PUT"].sort(),
    );
  });

  test("takes a string, a URL and a Request, whose body can be sent again", async () => {
    const bodies: string[] = [];
    const { client, fail } = mockServices({
      identity: async (request) => {
        bodies.push(await request.text());
        return new Response("done");
      },
    });
    await client.get(new URL("service://identity/teams"));
    fail("identity", 503);
    const request = new Request("service://identity/teams", { method: "PUT", body: "hello", headers: { "x-a": "1" } });
    expect(await client.put(request).text()).toBe("done");
    expect(bodies).toEqual(["", "hello"]);
  });

  test("is sent even when nobody waits for it", async () => {
    const { client, requests, clock } = mockServices({ identity: echo });
    client.post("service://identity/events", { json: { a: 1 } }).catch(() => undefined);
    await clock.advance(0);
    expect(requests).toHaveLength(1);
  });

  test("is a promise like any other, that can be asked for both response and body", async () => {
    const { client, requests } = mockServices({ identity: echo });
    const call = client.get("service://identity/");
    expect(call).toBeInstanceOf(Promise);
    const json = call.json<Echo>();
    expect(await call.then(({ status }) => status)).toBe(200);
    expect((await json).method).toBe("GET");
    await call.finally(() => undefined);
    const [first] = await Promise.all([call, client.get("service://identity/").then(() => 2)]);
    expect(first.status).toBe(200);
    expect(requests).toHaveLength(3);
    const begun = client.get("service://identity/");
    await begun;
    expect((await begun.json<Echo>()).path).toBe("/");
    expect(requests).toHaveLength(4);
  });

  test("carries JSON with its content type, unless the caller names another", async () => {
    const { client } = mockServices({ identity: echo });
    const types = await Promise.all([
      client.post("service://identity/", { json: { a: 1 } }).json<Echo>(),
      client
        .post("service://identity/", { json: 1, headers: { "content-type": "application/merge-patch+json" } })
        .json<Echo>(),
    ]);
    expect(types.map(({ headers }) => headers["content-type"])).toEqual([
      "application/json",
      "application/merge-patch+json",
    ]);
  });
});

describe("the answer", () => {
  const Team = z.object({ id: z.coerce.number(), name: z.string() });

  test("is JSON, text, bytes or a stream, as asked for", async () => {
    const { client } = mockServices({ identity: () => new Response('{"id":"1","name":"core"}') });
    const url = "service://identity/teams/1";
    const team: { id: number; name: string } = await client.get(url).json(Team);
    expect(team).toEqual({ id: 1, name: "core" });
    expect(await client.get(url).text()).toBe('{"id":"1","name":"core"}');
    expect((await client.get(url).bytes()).byteLength).toBe(24);
    expect(await new Response(await client.get(url).stream()).text()).toBe('{"id":"1","name":"core"}');
    expect(await (await client.get(url)).json()).toEqual({ id: "1", name: "core" });
  });

  test("that is not what the schema says is an error that names the field", async () => {
    const { client, requests } = mockServices({ identity: () => Response.json({ id: 1 }) });
    const error = await errorOf(client.get("service://identity/teams/1").json(Team));
    expect(error).toMatchObject({ kind: "bad_answer", sent: "yes", service: "identity" });
    expect(error.message).toMatch(/^GET service:\/\/identity\/teams\/1 answered JSON that is not as expected: name: /);
    expect(requests).toHaveLength(1);
  });

  for (const [what, body, type, message] of [
    ["HTML", "<html>nope</html>", "text/html", /answered text\/html that is not JSON: "<html>nope<\/html>"$/],
    ["empty", "", "text/html", /answered nothing where JSON was expected$/],
    ["empty JSON", "", "application/json", /answered nothing where JSON was expected$/],
    ["broken JSON", '{"a":', "application/json", /answered JSON with a mistake in it: /],
  ] as const) {
    test(`that is ${what} where JSON was asked for is an error`, async () => {
      const { client } = mockServices({
        identity: () =>
          new Response(body, { headers: { "content-type": type, "content-length": String(body.length) } }),
      });
      expect((await errorOf(client.get("service://identity/").json())).message).toMatch(message);
    });
  }

  test("of 400 or more is thrown, with status, body and what the problem document says", async () => {
    const problem = { title: "not found", detail: "team 7 does not exist", code: "not_found" };
    const { client } = mockServices({
      identity: () => Response.json(problem, { status: 404, headers: { "content-type": "application/problem+json" } }),
    });
    const error = await errorOf(client.get("service://identity/teams/7"));
    expect(error).toMatchObject({ kind: "status", status: 404, sent: "yes", service: "identity", problem });
    expect(error.message).toBe("GET service://identity/teams/7 answered 404: team 7 does not exist");
  });

  test("comes without throwing by .safe(), on the request and on a body", async () => {
    const { client, fail } = mockServices({ identity: () => Response.json([1]) });
    const good = await client.get("service://identity/").safe();
    expect(good.ok && (await good.response.json())).toEqual([1]);
    expect(await client.get("service://identity/").json().safe()).toEqual({ ok: true, value: [1] });
    fail("identity", 404, 404);
    const bad = await client.get("service://identity/").safe();
    expect(bad.error?.status).toBe(404);
    expect((await client.get("service://identity/").json().safe()).error?.status).toBe(404);
    expect((await client.get("nonsense").safe()).error?.kind).toBe("invalid_request");
  });

  test("longer than the limit is refused, however it is read", async () => {
    const chunks = (): Response =>
      new Response(
        new ReadableStream({
          start(controller) {
            for (let i = 0; i < 5; i += 1) controller.enqueue(new Uint8Array(300));
            controller.close();
          },
        }),
      );
    const { client } = mockServices(
      { identity: chunks, sized: () => new Response("x".repeat(1_500)) },
      { maxResponseBytes: 1_000 },
    );
    const errors = await Promise.all([
      errorOf(client.get("service://identity/").text()),
      errorOf(client.get("service://identity/").bytes()),
      errorOf(client.get("service://sized/").json()),
      errorOf(client.get("service://identity/").then((response) => response.text())),
      errorOf(
        client
          .get("service://identity/")
          .stream()
          .then((stream) => new Response(stream).text()),
      ),
    ]);
    expect(errors.map(({ kind }) => kind)).toEqual(Array.from({ length: 5 }, () => "response_too_large"));
    expect(errors[0]?.message).toBe("GET service://identity/ answered a body longer than 1000 bytes");
  });
});

describe("bad input", () => {
  const loop: Record<string, unknown> = {};
  loop.self = loop;
  const cases: [string, (client: ReturnType<typeof mockServices>["client"]) => PromiseLike<unknown>, RegExp][] = [
    ["a scheme nobody knows", (client) => client.get("ftp://identity/x"), /scheme ftp/],
    ["a bad service name", (client) => client.get("service://Identity/x"), /not a service name/],
    [
      "a header with a line break",
      (client) => client.get("service://identity/", { headers: { a: "b\r\nc: d" } }),
      /header a/,
    ],
    [
      "an idempotency key with a line break",
      (client) => client.post("service://identity/", { idempotencyKey: "a\nb" }),
      /idempotency-key/,
    ],
    ["JSON with a loop", (client) => client.post("service://identity/", { json: loop }), /cannot be written as JSON/],
    ["JSON with a bigint", (client) => client.post("service://identity/", { json: 1n }), /cannot be written as JSON/],
    ["a function as JSON", (client) => client.post("service://identity/", { json: () => 1 }), /it is a function/],
    [
      "both json and body",
      (client) => client.post("service://identity/", { json: 1, body: "x" }),
      /either json or body/,
    ],
    ["a body with GET", (client) => client.get("service://identity/", { json: 1 }), /GET takes no body/],
    [
      "a timeout that is no number",
      (client) => client.get("service://identity/", { timeout: Number.NaN }),
      /timeout must be/,
    ],
    ["no attempts", (client) => client.get("service://identity/", { retry: { attempts: 0 } }), /retry\.attempts/],
    ["a bulkhead of nothing", (client) => client.get("service://identity/", { bulkhead: 0 }), /bulkhead/],
    [
      "a router that is no URL",
      (client) => client.get("service://identity/", { router: "localhost:4000" }),
      /router must be/,
    ],
    [
      "a method with a space",
      (client) => client.request("service://identity/", { method: "GET /x" }),
      /is not a method/,
    ],
  ];
  for (const [name, call, message] of cases) {
    test(`${name} is a typed error, and nothing is sent`, async () => {
      const { client, requests } = mockServices({ identity: echo });
      const error = await errorOf(call(client));
      expect(error).toMatchObject({ kind: "invalid_request", sent: "no", attempts: [] });
      expect(error.message).toMatch(message);
      expect(requests).toHaveLength(0);
    });
  }

  test("in the environment is named by its variable", async () => {
    const routerless = createSmartClient({}, { environment: { SMARTSTACK_ROUTER: "nonsense" } });
    expect((await errorOf(routerless.get("service://identity/"))).message).toMatch(/SMARTSTACK_ROUTER/);
    const misled = createSmartClient({}, { environment: { SMARTSTACK_SERVICE_IDENTITY: "localhost" } });
    expect((await errorOf(misled.get("service://identity/"))).message).toMatch(/SMARTSTACK_SERVICE_IDENTITY/);
  });
});

describe("retries", () => {
  test("GET is tried three times, and the error tells of each attempt", async () => {
    const { client, fail, requests } = mockServices({ identity: echo });
    fail("identity", 503, "dropped", 502);
    const error = await errorOf(client.get("service://identity/teams"));
    expect(requests).toHaveLength(3);
    expect(
      error.attempts.map(({ number, outcome, status, code, sent }) => [number, outcome, status ?? code, sent]),
    ).toEqual([
      [1, "status", 503, "yes"],
      [2, "connection", "ECONNRESET", "maybe"],
      [3, "status", 502, "yes"],
    ]);
    expect(error.message).toBe("GET service://identity/teams answered 502 (3 attempts)");
    expect(error.attempts[0]?.waitedMs).toBe(0);
    expect(error.attempts[1]?.waitedMs).toBeLessThan(50);
    expect(error.attempts[2]?.waitedMs).toBeLessThan(100);
  });

  test("POST that may have run is not repeated; with an idempotency key it is, with the same key", async () => {
    const { client, fail, requests } = mockServices({ identity: echo });
    fail("identity", "dropped");
    expect(await errorOf(client.post("service://identity/"))).toMatchObject({ kind: "connection", sent: "maybe" });
    expect(requests).toHaveLength(1);
    fail("identity", "dropped", 503);
    await client.post("service://identity/", { idempotencyKey: true });
    const keys = requests.slice(1).map(({ headers }) => headers.get("idempotency-key"));
    expect(keys).toHaveLength(3);
    expect(new Set(keys).size).toBe(1);
    expect(keys[0]).toMatch(/^[0-9a-f-]{36}$/);
    await client.post("service://identity/", { idempotencyKey: "order-7" });
    expect(requests.at(-1)?.headers.get("idempotency-key")).toBe("order-7");
  });

  test("POST is repeated when HAProxy itself says that it went nowhere, but not when the service says the same", async () => {
    const { client, fail, requests } = mockServices({ identity: echo });
    fail("identity", "no_instance", "no_instance");
    await client.post("service://identity/");
    expect(requests).toHaveLength(3);
    fail("identity", 503);
    expect(await errorOf(client.post("service://identity/"))).toMatchObject({
      kind: "status",
      status: 503,
      sent: "yes",
    });
    expect(requests).toHaveLength(4);
  });

  test("a service that says Smartstack-Reply at an address of its own is not believed", async () => {
    const liar = (): Response => new Response("", { status: 503, headers: { "smartstack-reply": "proxy" } });
    const { fetch, requests } = mockServices({ "localhost:5000": liar });
    const client = createSmartClient(
      { fetch },
      { environment: { SMARTSTACK_SERVICE_IDENTITY: "http://localhost:5000" } },
    );
    expect(await errorOf(client.post("service://identity/"))).toMatchObject({ kind: "status", sent: "yes" });
    expect(requests).toHaveLength(1);
  });

  test("errors say when nothing was sent: no such service, no instance", async () => {
    const { client, fail } = mockServices({ identity: echo });
    const unknown = await errorOf(client.get("service://nobody/x"));
    expect(unknown).toMatchObject({ kind: "unknown_service", sent: "no", status: 404 });
    expect(unknown.message).toBe('GET service://nobody/x went nowhere: no service "nobody" is registered (3 attempts)');
    fail("identity", "no_instance", "no_instance", "no_instance");
    expect(await errorOf(client.get("service://identity/x"))).toMatchObject({ kind: "no_instance", sent: "no" });
  });

  test("a stream is sent once", async () => {
    const { client, fail, requests } = mockServices({ identity: echo });
    fail("identity", 503);
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(new TextEncoder().encode("x"));
        controller.close();
      },
    });
    expect((await errorOf(client.put("service://identity/", { body }))).status).toBe(503);
    expect(requests).toHaveLength(1);
  });

  test("retry: false means one attempt, even when the router refuses", async () => {
    const { client, fail, requests } = mockServices({ identity: echo });
    fail("identity", 503);
    await errorOf(client.get("service://identity/", { retry: false }));
    fail("identity", "refused");
    await errorOf(client.get("service://identity/", { retry: false }));
    expect(requests).toHaveLength(2);
  });

  test("Retry-After is waited for when it fits, and ends the call at once when it does not", async () => {
    const later =
      (seconds: string): (() => Response) =>
      () =>
        new Response("", { status: 503, headers: { "retry-after": seconds } });
    const { client, clock, requests } = mockServices({ soon: later("3"), late: later("11") });
    const began = clock.now();
    const soon = await errorOf(client.get("service://soon/"));
    expect(soon.attempts).toHaveLength(3);
    for (const attempt of soon.attempts.slice(1)) expect(attempt.waitedMs).toBeGreaterThanOrEqual(3_000);
    expect(clock.now() - began).toBeGreaterThanOrEqual(6_000);
    const late = await errorOf(client.get("service://late/"));
    expect(late.message).toMatch(/answered 503 \(no time left for another attempt\)$/);
    expect(requests.filter(({ service }) => service === "late")).toHaveLength(1);
  });

  test("a router that refuses is asked for two seconds, outside attempts and budget, for POST too", async () => {
    const { client, fail, clock, requests } = mockServices({ identity: echo });
    fail("identity", ...Array.from({ length: 20 }, () => "refused" as const), 503);
    const began = clock.now();
    const response = await client.put("service://identity/", { retry: { budget: { reserve: 1, ratio: 0 } } });
    expect(response.status).toBe(200);
    expect(requests).toHaveLength(22);
    expect(clock.now() - began).toBeLessThan(2_500);
    fail("identity", ...Array.from({ length: 500 }, () => "refused" as const));
    const error = await errorOf(client.post("service://identity/"));
    expect(error).toMatchObject({ kind: "router_unreachable", code: "unreachable", sent: "no" });
    expect(error.hint).toMatch(/smartstack sidecar.*SMARTSTACK_ROUTER.*SMARTSTACK_SERVICE_IDENTITY/);
    expect(error.attempts).toHaveLength(1);
    expect(error.attempts[0]?.times).toBeGreaterThan(15);
    expect(error.attempts[0]?.tookMs).toBeLessThan(2_000);
  });

  test("the budget ends retries when everything fails: 1.12 requests a call at most", async () => {
    const { client, requests } = mockServices(
      { identity: () => new Response("", { status: 503 }) },
      { circuitBreaker: false },
    );
    // all in the same instant, as far as the budget's window goes
    const errors = await Promise.all(
      Array.from({ length: 1_000 }, () => errorOf(client.get("service://identity/", { bulkhead: false }))),
    );
    expect(requests.length / 1_000).toBeLessThanOrEqual(1.12);
    expect(requests.length).toBeGreaterThan(1_000);
    expect(errors.filter(({ message }) => message.includes("retry budget is spent")).length).toBeGreaterThan(800);
  });

  test("jitter is drawn anew for each wait", async () => {
    const draws = [0.5, 0.25];
    const waits: number[] = [];
    const { fetch, clock, fail } = mockServices({ identity: echo });
    const client = createSmartClient(
      { fetch, hooks: { retry: ({ waitMs }) => waits.push(waitMs) } },
      { clock, environment: {}, random: () => draws.shift() ?? 0 },
    );
    fail("identity", 503, 503);
    await client.get("service://identity/");
    expect(waits).toEqual([25, 25]);
  });
});

describe("time", () => {
  test("an attempt that stalls is given up and tried again; the call ends at its own timeout", async () => {
    const { client, clock, fail, requests } = mockServices({ identity: echo });
    fail("identity", "stalled");
    const call = client.get("service://identity/").json();
    await clock.advance(1_999);
    expect(requests).toHaveLength(1);
    await clock.advance(1);
    await call;
    expect(requests).toHaveLength(2);
    fail("identity", "stalled", "stalled", "stalled");
    const failing = errorOf(client.get("service://identity/", { timeout: 3_000 }));
    await clock.advance(3_000);
    const error = await failing;
    expect(error).toMatchObject({ kind: "timeout", code: "timed_out", sent: "maybe" });
    expect(error.message).toBe("GET service://identity/ timed out after 3000 ms (2 attempts)");
    expect(clock.pending).toBe(0);
  });

  test("what is left goes out as Smartstack-Timeout-Ms", async () => {
    const { client, clock, fail, requests } = mockServices({ identity: echo });
    fail("identity", "stalled");
    const call = client.get("service://identity/", { timeout: 3_000 }).json();
    await clock.advance(2_000);
    await call;
    const left = requests.map(({ headers }) => Number(headers.get("smartstack-timeout-ms")));
    expect(left[0]).toBe(2_000);
    expect(left[1]).toBeGreaterThan(900);
    expect(left[1]).toBeLessThanOrEqual(1_000);
  });

  test("a call inside a request inherits its deadline, trace and id, and is not made when there is no time left", async () => {
    const { client, clock, requests } = mockServices({ identity: echo });
    const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    const context = { deadlineAt: clock.now() + 500, traceparent, tracestate: "v=1", requestId: "r-1" };
    await runInContext(context, async () => {
      const { headers } = await client.get("service://identity/").json<Echo>();
      expect(headers).toMatchObject({ "smartstack-timeout-ms": "500", "x-request-id": "r-1", tracestate: "v=1" });
      expect(headers.traceparent).toMatch(/^00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-00$/);
      expect(headers.traceparent).not.toBe(traceparent);
      await clock.advance(500);
      const error = await errorOf(client.get("service://identity/"));
      expect(error).toMatchObject({ kind: "timeout", sent: "no", attempts: [] });
      expect(error.message).toMatch(/had no time left/);
    });
    expect(requests).toHaveLength(1);
  });

  test("the caller's signal ends a call while it is sent, while it waits, and before it begins", async () => {
    const { client, clock, fail, requests } = mockServices({ identity: echo });
    const reason = new Error("enough");
    fail("identity", "stalled");
    const sending = new AbortController();
    const first = errorOf(client.get("service://identity/", { signal: sending.signal }));
    await clock.advance(10);
    sending.abort(reason);
    expect(await first).toMatchObject({ kind: "aborted", cause: reason });
    fail("identity", 503);
    const waiting = new AbortController();
    const hooks = { retry: () => waiting.abort(reason) };
    expect(await errorOf(client.get("service://identity/", { signal: waiting.signal, hooks }))).toMatchObject({
      kind: "aborted",
    });
    expect(await errorOf(client.get("service://identity/", { signal: AbortSignal.abort(reason) }))).toMatchObject({
      kind: "aborted",
      sent: "no",
    });
    expect(requests).toHaveLength(2);
  });
});

describe("isolation", () => {
  test("a service that fails is left alone, and asked again by one probe", async () => {
    const { client, clock, fail, requests } = mockServices({ identity: echo });
    fail("identity", ...Array.from({ length: 20 }, () => 503));
    for (let i = 0; i < 20; i += 1) await errorOf(client.get("service://identity/", { retry: false }));
    const error = await errorOf(client.get("service://identity/"));
    expect(error).toMatchObject({ kind: "circuit_open", sent: "no" });
    expect(error.message).toMatch(/identity failed too often and is left alone for \d+ ms more$/);
    expect(requests).toHaveLength(20);
    expect(client.stats("identity")).toMatchObject({ rejected: 1, sent: 20, circuitBreaker: { kind: "open" } });
    await clock.advance(1_000);
    const results = await Promise.all(Array.from({ length: 5 }, () => client.get("service://identity/").safe()));
    expect(results.filter(({ ok }) => ok)).toHaveLength(1);
    expect(requests).toHaveLength(21);
    expect(client.stats("identity").circuitBreaker.kind).toBe("closed");
  });

  test("the breaker of one service says nothing about another, and can be turned off", async () => {
    const down = (): Response => new Response("", { status: 503 });
    const { client, requests } = mockServices({ identity: down, billing: echo });
    for (let i = 0; i < 30; i += 1)
      await errorOf(client.get("service://identity/", { circuitBreaker: false, retry: false }));
    expect(requests).toHaveLength(30);
    for (let i = 0; i < 30; i += 1) await errorOf(client.get("service://identity/", { retry: false }));
    expect(requests).toHaveLength(50);
    expect((await client.get("service://billing/")).status).toBe(200);
  });

  test("calls beyond the bulkhead wait for a place, up to their deadline; beyond the queue they are refused", async () => {
    const { client, clock, fail, requests } = mockServices({ identity: echo }, { bulkhead: 2, retry: false });
    fail("identity", "stalled", "stalled");
    const calls = Array.from({ length: 23 }, () => client.get("service://identity/", { timeout: 1_000 }).safe());
    await clock.advance(0);
    expect(client.stats("identity")).toMatchObject({ inFlight: 2, waiting: 20, rejected: 1 });
    expect((await calls[22])?.error?.message).toMatch(/was not sent: 2 calls to identity are under way and 20 wait$/);
    await clock.advance(1_000);
    const kinds = (await Promise.all(calls)).map(({ error }) => error?.kind ?? "ok");
    // a place that comes at the deadline is of no use: nothing more was sent
    expect(kinds.filter((kind) => kind === "timeout")).toHaveLength(22);
    expect(requests).toHaveLength(2);
    expect(kinds.filter((kind) => kind === "bulkhead_full")).toHaveLength(1);
    expect(client.stats("identity")).toMatchObject({ inFlight: 0, waiting: 0 });
    expect(clock.pending).toBe(0);
  });
});

describe("hedging", () => {
  /** Answers at once, but for what `slow` says. */
  function hedged(slow: () => boolean) {
    const aborted: string[] = [];
    const mock = mockServices(
      {
        identity: (request) => {
          if (!slow()) return new Response("fast");
          request.signal.addEventListener("abort", () => aborted.push("closed"));
          return new Promise<Response>(() => undefined);
        },
      },
      { hedge: true },
    );
    return { ...mock, aborted };
  }

  test("a slow GET is asked once more after the 95th percentile, and the loser is closed", async () => {
    let slow = false;
    const { client, requests } = hedged(() => slow);
    for (let i = 0; i < 20; i += 1) await client.get("service://identity/").text();
    slow = true;
    const call = client.get("service://identity/", {
      // the first is slow, the second is not
      hooks: { request: () => void (slow = requests.length === 20) },
    });
    expect(await call.text()).toBe("fast");
    expect(requests).toHaveLength(22);
    expect(client.stats("identity")).toMatchObject({ hedges: 1, retries: 0, inFlight: 0 });
  });

  test("POST is never hedged, and neither is anything before there is a percentile", async () => {
    const { client, clock, requests } = hedged(() => true);
    const calls = [client.get("service://identity/").safe(), client.post("service://identity/").safe()];
    await clock.advance(1_500);
    expect(requests).toHaveLength(2);
    await clock.advance(20_000);
    await Promise.all(calls);
  });

  test("hedges are drawn from the retry budget", async () => {
    let slow = false;
    const { client, clock, requests } = hedged(() => slow);
    for (let i = 0; i < 20; i += 1) await client.get("service://identity/").text();
    slow = true;
    const options = { retry: { attempts: 1, budget: { ratio: 0, reserve: 2 } } };
    const calls = Array.from({ length: 5 }, () => client.get("service://identity/", options).safe());
    await clock.advance(1_000);
    expect(requests).toHaveLength(20 + 5 + 2);
    await clock.advance(20_000);
    await Promise.all(calls);
    expect(client.stats("identity").inFlight).toBe(0);
  });
});

describe("redirects", () => {
  const site = (request: Request): Response => {
    const { pathname, search } = new URL(request.url);
    if (pathname === "/old") return new Response("", { status: 302, headers: { location: `/new${search}` } });
    if (pathname === "/moved") return new Response("", { status: 308, headers: { location: "/new" } });
    if (pathname === "/loop") return new Response("", { status: 302, headers: { location: "/loop" } });
    if (pathname === "/away")
      return new Response("", { status: 302, headers: { location: "http://evil.example/x?t=1" } });
    return echo(request);
  };

  test("within the service are followed, and POST becomes GET as in browsers", async () => {
    const { client } = mockServices({ identity: site });
    expect(await client.get("service://identity/old?a=1").json<Echo>()).toMatchObject({
      method: "GET",
      path: "/new?a=1",
    });
    expect(await client.post("service://identity/old", { json: {} }).json<Echo>()).toMatchObject({ method: "GET" });
    expect(await client.post("service://identity/moved", { json: {} }).json<Echo>()).toMatchObject({
      method: "POST",
      headers: { "content-type": "application/json" },
    });
  });

  test("out of it, and without end, are errors", async () => {
    const { client, requests } = mockServices({ identity: site });
    const away = await errorOf(client.get("service://identity/away"));
    expect(away).toMatchObject({ kind: "redirect", sent: "yes" });
    expect(away.message).toMatch(/was redirected out of the service, to http:\/\/evil\.example\/x$/);
    expect(requests).toHaveLength(1);
    expect((await errorOf(client.get("service://identity/loop"))).message).toMatch(/more than 5 times/);
    expect(requests).toHaveLength(1 + 6);
  });
});

describe("hooks, statistics and events", () => {
  test("retry and done only listen: a call goes on as it would without them", async () => {
    const { client, fail } = mockServices({ identity: echo });
    const warned = spyOn(process, "emitWarning").mockImplementation(() => undefined);
    const broken = (): never => {
      throw new Error("broken hook");
    };
    fail("identity", 503);
    const hooks = { retry: broken, done: broken };
    expect((await client.get("service://identity/x", { hooks }).safe()).ok).toBe(true);
    expect(client.stats("identity")).toMatchObject({ calls: 1, ok: 1, failed: 0 });
    expect(warned.mock.calls.map(([text]) => text)).toEqual([
      'the hook "retry" of a smart client threw: broken hook',
      'the hook "done" of a smart client threw: broken hook',
    ]);
    warned.mockRestore();
  });

  test("hooks of a client and of a call both run; headers can be added; one that throws ends the call", async () => {
    const told: string[] = [];
    const { client, fail, requests } = mockServices(
      { identity: echo },
      {
        hooks: {
          request: ({ headers, attempt }) => {
            headers.authorization = `Bearer ${attempt}`;
          },
          done: ({ attempts }) => told.push(`client ${attempts.length}`),
        },
      },
    );
    fail("identity", 503);
    await client.get("service://identity/", {
      hooks: {
        request: async () => void told.push("request"),
        retry: ({ failed }) => told.push(`retry ${failed.status}`),
        done: ({ error }) => told.push(`call ${error?.kind}`),
      },
    });
    expect(requests.map(({ headers }) => headers.get("authorization"))).toEqual(["Bearer 1", "Bearer 2"]);
    expect(told).toEqual(["request", "retry 503", "request", "client 2", "call undefined"]);
    const cause = new Error("no token");
    const error = await errorOf(
      client.get("service://identity/", {
        hooks: {
          request: () => {
            throw cause;
          },
        },
      }),
    );
    expect(error).toMatchObject({ kind: "hook_failed", sent: "no", cause });
    expect(requests).toHaveLength(2);
  });

  test("statistics count what went out and how it went", async () => {
    const { client, fail } = mockServices({ identity: echo });
    fail("identity", 503, 404);
    await client.get("service://identity/").safe();
    await client.get("service://identity/").json();
    expect(client.stats("identity")).toMatchObject({
      service: "identity",
      calls: 2,
      ok: 1,
      failed: 1,
      sent: 3,
      retries: 1,
      retriesAvailable: 9,
      circuitBreaker: { kind: "closed" },
      latency: { p50: 0 },
    });
    expect(
      client
        .extend({ timeout: 1 })
        .stats()
        .map(({ service }) => service),
    ).toEqual(["identity"]);
  });

  test("events go to diagnostics_channel", async () => {
    const events: CallEvent[] = [];
    const listen = (event: unknown): void => void events.push(event as CallEvent);
    subscribe(CHANNELS.call, listen);
    const { client } = mockServices({ identity: echo });
    await client.get("service://identity/teams").json();
    unsubscribe(CHANNELS.call, listen);
    await client.get("service://identity/teams").json();
    expect(events).toMatchObject([{ service: "identity", method: "GET", attempts: [{ outcome: "ok", status: 200 }] }]);
  });
});

describe("clients made from clients", () => {
  test("extend adds headers and options, and shares what is known of each service", async () => {
    const { client, requests } = mockServices({ identity: echo });
    const mine = client.extend({ headers: { "x-a": "1", "x-b": "1" } }).extend({ headers: { "x-b": undefined } });
    await mine.get("service://identity/");
    expect([requests[0]?.headers.get("x-a"), requests[0]?.headers.get("x-b")]).toEqual(["1", null]);
    expect(client.stats("identity").calls).toBe(1);
    expect(() => client.extend({ timeout: -1 })).toThrow("timeout must be a number of 0 or more");
  });

  test("service() gives a client whose paths are the service's", async () => {
    const { client, requests } = mockServices({ identity: echo });
    const identity = client.service("identity", { headers: { "x-a": "1" } });
    await identity.get("/teams", { query: { page: 2 } });
    expect(requests[0]).toMatchObject({ service: "identity", path: "/teams?page=2" });
    expect(() => client.service("No")).toThrow(/not a service name/);
  });

  test("the environment names the router and, in the realm local, addresses of services", async () => {
    const urls: string[] = [];
    const fetch: Fetch = async (url) => {
      urls.push(url);
      return new Response("{}");
    };
    const environment = {
      SMARTSTACK_ROUTER: "http://127.0.0.1:4400/",
      SMARTSTACK_SERVICE_MY_IDENTITY: "http://localhost:5000",
    };
    await createSmartClient({ fetch }, { environment }).get("service://my-identity/x");
    await createSmartClient({ fetch }, { environment }).get("service://other/x");
    await createSmartClient({ fetch }, { environment: { ...environment, SMARTSTACK_REALM: "prod" } }).get(
      "service://my-identity/x",
    );
    await createSmartClient({ fetch }, { environment: {} }).get("service://other/x");
    expect(urls).toEqual([
      "http://localhost:5000/x",
      "http://127.0.0.1:4400/x",
      "http://127.0.0.1:4400/x",
      "http://127.0.0.1:4000/x",
    ]);
  });
});

describe("all", () => {
  const { client } = mockServices({});

  test("gives results where the tasks stood, at most so many at a time", async () => {
    let running = 0;
    let most = 0;
    const task = (value: number) => async () => {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setImmediate(resolve));
      running -= 1;
      return value;
    };
    expect(await client.all([1, 2, 3, 4, 5].map(task), { concurrency: 2 })).toEqual([1, 2, 3, 4, 5]);
    expect(most).toBe(2);
    const named: { a: number; b: string } = await client.all({ a: task(1), b: async () => "x" });
    expect(named).toEqual({ a: 1, b: "x" });
    expect(await client.all([])).toEqual([]);
  });

  test("the first failure is thrown, stops what has not begun and aborts what has", async () => {
    const begun: string[] = [];
    const failure = new Error("no");
    const aborted = Promise.withResolvers<unknown>();
    const running = client.all(
      {
        slow: ({ signal }) =>
          new Promise<void>((resolve) => {
            signal.addEventListener("abort", () => {
              aborted.resolve(signal.reason);
              resolve();
            });
          }),
        bad: async () => {
          throw failure;
        },
        never: () => void begun.push("never"),
      },
      { concurrency: 2 },
    );
    expect(await running.catch((error: unknown) => error)).toBe(failure);
    expect(await aborted.promise).toBe(failure);
    expect(begun).toEqual([]);
  });

  test("no concurrency at all is refused", async () => {
    expect((await errorOf(client.all([], { concurrency: 0 }))).kind).toBe("invalid_request");
  });
});
