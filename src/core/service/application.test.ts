import { afterEach, describe, expect, test } from "bun:test";
import { z } from "zod";
import { currentContext } from "../client/index.ts";
import { fakeClock } from "../lib/clock.ts";
import { createLogger } from "../lib/logger.ts";
import type { App } from "./app.ts";
import { conflict, notFound, tooManyRequests, unavailable } from "./problems.ts";
import { type Secret, secret } from "./secret.ts";
import { type ServiceOptions, smartService } from "./smart-service.ts";
import { type TestedService, testService, type TestServiceOptions } from "./test-service.ts";

const Team = z.object({ id: z.string(), name: z.string().min(1) });
const defaults = { PAGE_SIZE: 20, API_KEY: secret("planted-secret") };

const running: TestedService[] = [];
afterEach(async () => {
  for (const service of running.splice(0)) await service.stop();
});

function serve(
  define: (app: App<{ PAGE_SIZE: number; API_KEY: Secret }>) => void,
  options: TestServiceOptions = {},
  more: Omit<ServiceOptions<typeof defaults>, "defaults"> = {},
): TestedService {
  const service = testService(smartService("identity", { defaults, ...more }, define), options);
  running.push(service);
  return service;
}

const send = (
  method: string,
  body: unknown,
  headers: Record<string, string> = { "content-type": "application/json" },
) => ({
  method,
  headers,
  body: typeof body === "string" ? body : JSON.stringify(body),
});

describe("a typed route", () => {
  const define = (app: App): void => {
    app.get("/teams/:id", { returns: Team }, ({ params }) => ({ id: params.id, name: "core", password: "left out" }));
    app.put("/teams/:id", { body: Team.omit({ id: true }), returns: Team, status: 201 }, ({ params, body }) => ({
      ...params,
      ...body,
    }));
    app.get(
      "/pages/:page",
      {
        params: z.object({ page: z.coerce.number().int() }),
        query: z.object({ tag: z.union([z.string(), z.array(z.string())]).optional() }),
      },
      ({ params, query }) => ({ page: params.page + 1, tag: query.tag ?? null }),
    );
    app.delete("/teams/:id", () => undefined);
    app.get("/raw", () => new Response("raw", { status: 202 }));
    app.get("/lies", { returns: Team }, () => ({ id: 7 }) as never);
    app.get("/untyped", ({ query }) => query);
  };

  test("hands its handler what was declared, and answers with what was declared", async () => {
    const service = serve(define);
    expect(await (await service.request("/teams/7")).json()).toEqual({ id: "7", name: "core" });
    const put = await service.request("/teams/7", send("PUT", { name: "core" }));
    expect(put.status).toBe(201);
    expect(await put.json()).toEqual({ id: "7", name: "core" });
    expect(await (await service.request("/pages/4?tag=a&tag=b")).json()).toEqual({ page: 5, tag: ["a", "b"] });
    expect(await (await service.request("/untyped?a=1&b=2")).json()).toEqual({ a: "1", b: "2" });
  });

  test("answers 204 for nothing, and leaves a Response alone", async () => {
    const service = serve(define);
    expect((await service.request("/teams/7", { method: "DELETE" })).status).toBe(204);
    const raw = await service.request("/raw");
    expect([raw.status, await raw.text()]).toEqual([202, "raw"]);
  });

  test("names every bad field of a request", async () => {
    const service = serve(define);
    const response = await service.request("/pages/x?tag=a");
    expect(response.status).toBe(400);
    expect(response.headers.get("content-type")).toBe("application/problem+json");
    expect(await response.json()).toMatchObject({ code: "invalid", errors: [{ path: "params.page" }] });
    const put = await service.request("/teams/7", send("PUT", { name: "" }));
    expect(await put.json()).toMatchObject({ status: 400, errors: [{ path: "body.name" }] });
  });

  test("refuses bodies that are no JSON, of another type, missing, or too large", async () => {
    const service = serve(define, {}, { maxBodyBytes: 100 });
    const answers = [
      await service.request("/teams/7", send("PUT", "{")),
      await service.request("/teams/7", send("PUT", "a=b", { "content-type": "application/x-www-form-urlencoded" })),
      await service.request("/teams/7", { method: "PUT" }),
      await service.request("/teams/7", send("PUT", { name: "x".repeat(100) }, { "content-length": "111" })),
      await service.request("/teams/7", { method: "PUT", body: new Response("x".repeat(101)).body }),
    ];
    expect(answers.map(({ status }) => status)).toEqual([400, 415, 400, 413, 413]);
    expect(await answers[4]?.json()).toMatchObject({ code: "too_large" });
  });

  test("that answers something else than it declared is a bug of the service, and the caller is not told what", async () => {
    const response = await serve(define).request("/lies");
    expect(response.status).toBe(500);
    expect(await response.text()).not.toContain("name");
  });

  test("is found by method: 405 says which ones there are, 404 that there is nothing", async () => {
    const service = serve(define);
    const wrong = await service.request("/teams/7", { method: "POST" });
    expect([wrong.status, wrong.headers.get("allow")]).toEqual([405, "GET, PUT, DELETE"]);
    expect(await (await service.request("/nothing")).json()).toMatchObject({
      code: "not_found",
      detail: "there is no /nothing",
    });
    expect((await service.request("/teams/7", { method: "HEAD" })).status).toBe(200);
  });
});

describe("what a handler throws", () => {
  test("is the answer when it was meant to be", async () => {
    const service = serve((app) => {
      app.get("/missing", () => {
        throw notFound("team 7 does not exist");
      });
      app.get("/taken", async () => {
        throw conflict("the name is taken", { code: "name_taken", extra: { by: "core" } });
      });
      app.get("/often", () => {
        throw tooManyRequests("slow down", 7);
      });
      app.get("/later", () => {
        throw unavailable("not now");
      });
    });
    expect(await (await service.request("/missing")).json()).toMatchObject({
      status: 404,
      code: "not_found",
      detail: "team 7 does not exist",
    });
    expect(await (await service.request("/taken")).json()).toMatchObject({
      status: 409,
      code: "name_taken",
      by: "core",
    });
    expect((await service.request("/often")).headers.get("retry-after")).toBe("7");
    expect((await service.request("/later")).status).toBe(503);
  });

  test("is a 500 otherwise: the log has it under the request id, the caller has only the id", async () => {
    const lines: string[] = [];
    const logger = createLogger({ name: "identity", destination: { write: (line) => lines.push(line) } });
    const service = serve(
      (app) => {
        app.get("/boom", ({ config }) => {
          throw new Error(`boom ${String(config.API_KEY)}`);
        });
        app.get("/odd", () => {
          throw "a string";
        });
        app.get("/later", async () => {
          await Promise.resolve();
          throw { also: "odd" };
        });
      },
      { logger },
    );
    const response = await service.request("/boom", { headers: { "x-request-id": "abc-1" } });
    expect(await response.json()).toMatchObject({ status: 500, code: "internal", requestId: "abc-1" });
    expect(response.headers.get("x-request-id")).toBe("abc-1");
    expect(lines.join("")).toContain('"requestId":"abc-1"');
    expect(lines.join("")).toContain("boom [secret]");
    expect([(await service.request("/odd")).status, (await service.request("/later")).status]).toEqual([500, 500]);
  });
});

describe("time", () => {
  test("is over: 504, and the handler's signal aborts", async () => {
    const clock = fakeClock();
    let reason: unknown;
    const service = serve(
      (app) => {
        app.get("/hang", { timeoutMs: 100 }, ({ signal }) => {
          signal.addEventListener("abort", () => {
            reason = signal.reason;
          });
          return new Promise(() => undefined);
        });
      },
      { clock },
    );
    const answer = service.request("/hang");
    await clock.advance(150);
    const response = await answer;
    expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([504, "timed_out"]);
    expect(reason).toBeInstanceOf(Error);
  });

  test("is the caller's when he has less, and goes on with the calls from here", async () => {
    const clock = fakeClock();
    const service = serve(
      (app) => {
        app.get("/context", async () => {
          await Promise.resolve();
          const { deadlineAt = 0, requestId, traceparent } = currentContext() ?? {};
          return { leftMs: deadlineAt - clock.now(), requestId, traceparent };
        });
        app.get("/hang", () => new Promise(() => undefined));
      },
      { clock },
    );
    const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const headers = { "smartstack-timeout-ms": "1500", "x-request-id": "r1", traceparent };
    expect(await (await service.request("/context", { headers })).json()).toEqual({
      leftMs: 1_500,
      requestId: "r1",
      traceparent,
    });
    expect(await (await service.request("/context")).json()).toMatchObject({
      leftMs: 30_000,
      traceparent: expect.stringMatching(/^00-/),
    });
    const hung = service.request("/hang", { headers });
    await clock.advance(1_525);
    expect((await hung).status).toBe(504);
  });
});

describe("overload", () => {
  test("fills the service, then a short queue, then gets a quick 503 with Retry-After; it goes on afterwards", async () => {
    const clock = fakeClock();
    const gates: (() => void)[] = [];
    const service = serve(
      (app) => {
        app.get("/slow", async () => {
          await new Promise<void>((resolve) => gates.push(resolve));
          return "done";
        });
      },
      { clock },
      { maxInFlight: 4 },
    );
    const inside = Array.from({ length: 4 }, () => service.request("/slow"));
    await clock.advance(0);
    const queued = service.request("/slow");
    await clock.advance(0);
    const refused = await service.request("/slow");
    expect([refused.status, refused.headers.get("retry-after")]).toEqual([503, "1"]);
    expect(await refused.json()).toMatchObject({ code: "overloaded" });
    // probes are answered all the while
    expect((await service.request("/readyz")).status).toBe(200);
    gates.shift()?.();
    await clock.advance(0);
    while (gates.length > 0) gates.shift()?.();
    expect((await Promise.all([...inside, queued])).map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
    const next = service.request("/slow");
    await clock.advance(0);
    gates.shift()?.();
    expect((await next).status).toBe(200);
    expect(await (await service.request("/metrics")).text()).toContain(
      'http_requests_refused_total{reason="overloaded"} 1',
    );
  });
});

describe("what every service has", () => {
  test("health in Runscope's shape, readiness by critical checks only, life in any case", async () => {
    const service = serve((app) => {
      app.check("cache", () => [false, "no cache"], { critical: false });
      app.check("teams", () => [true, "2 teams"]);
    });
    const health = await service.request("/healthcheck");
    expect(health.status).toBe(500);
    expect(await health.json()).toMatchObject({
      status: "failure",
      results: [
        { checker: "cache", output: "no cache", passed: false },
        { checker: "teams", passed: true },
      ],
    });
    expect((await service.request("/readyz")).status).toBe(200);
    expect((await service.request("/livez")).status).toBe(200);
  });

  test("not ready is a problem that says why", async () => {
    const service = serve((app) => app.check("database", () => [false, "refused"]));
    const response = await service.request("/readyz");
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({ code: "unavailable", reasons: ["database: refused"] });
  });

  test("a caller who leaves in the middle of his body is no bug of the service", async () => {
    const lines: string[] = [];
    const logger = createLogger({ name: "identity", destination: { write: (line) => void lines.push(line) } });
    const service = serve((app) => app.post("/x", async ({ request }) => (await request.text()).length), { logger });
    const leaves = new AbortController();
    const body = new ReadableStream({
      pull(controller) {
        leaves.abort();
        controller.error(new DOMException("The connection was closed.", "AbortError"));
      },
    });
    expect((await service.request("/x", { method: "POST", body, signal: leaves.signal })).status).toBe(499);
    expect(lines).toEqual([]);
  });

  test("an environment without secrets, and an OpenAPI document of its routes", async () => {
    const service = serve(
      (app) => app.get("/teams/:id", { returns: Team }, ({ params }) => ({ id: params.id, name: "x" })),
      {
        config: { PAGE_SIZE: 50 },
      },
    );
    const environment = await (await service.request("/environment")).text();
    expect(JSON.parse(environment)).toMatchObject({
      config: { PAGE_SIZE: { value: "50", source: "the test" }, API_KEY: { value: "[secret]", source: "default" } },
    });
    expect(environment).not.toContain("planted-secret");
    expect(await (await service.request("/openapi.json")).json()).toMatchObject({
      info: { title: "identity" },
      paths: { "/teams/{id}": {} },
    });
  });

  test("metrics by route pattern", async () => {
    const service = serve((app) => app.get("/teams/:id", () => ({})));
    await service.request("/teams/1");
    await service.request("/teams/2");
    const text = await (await service.request("/metrics")).text();
    expect(text).toContain('http_requests_total{method="GET",route="/teams/:id",status="200"} 2');
    expect(text).toContain("event_loop_lag_seconds");
    expect(text).toContain('smartstack_build_info{service="identity"');
  });
});

test("bad configuration fails the first request with every reason", async () => {
  const service = testService(
    smartService("identity", { defaults }, () => undefined),
    { config: { PAGE_SIZE: "x", OTHER: 1 } },
  );
  expect(service.request("/")).rejects.toThrow(/OTHER \(the test\)[\s\S]*PAGE_SIZE \(the test\): must be a number/);
});

test("clean-ups run once, last first, and a failing one stops no other", async () => {
  const order: string[] = [];
  const service = testService(
    smartService("identity", {}, (app) => {
      app.onStop(() => void order.push("first"));
      app.onStop(() => {
        throw new Error("broken");
      });
      app.onStop(async () => void order.push("last"));
    }),
  );
  await service.request("/livez");
  await service.stop();
  expect(order).toEqual(["last", "first"]);
});
