import { describe, expect, test } from "bun:test";
import { Hono } from "hono";
import { asSmartService, smartService } from "./smart-service.ts";
import { testService } from "./test-service.ts";

test("a service's name is one that can be a host name", () => {
  expect(() => smartService("Identity", {}, () => undefined)).toThrow('"Identity" is no service name');
});

describe("a default export", () => {
  test("may be a hono app; its routes are labels, its errors problems", async () => {
    const app = new Hono();
    app.get("/teams/:id", (c) => c.json({ id: c.req.param("id") }));
    app.get("/boom", () => {
      throw new Error("boom");
    });
    const service = testService(app);
    expect(await (await service.request("/teams/7")).json()).toEqual({ id: "7" });
    expect(await (await service.request("/boom")).json()).toMatchObject({ code: "internal" });
    expect((await service.request("/nope")).status).toBe(404);
    expect((await service.request("/readyz")).status).toBe(200);
    expect(await (await service.request("/metrics")).text()).toContain('route="/teams/:id",status="200"} 1');
    await service.stop();
  });

  test("may be a function, or an object with fetch", async () => {
    for (const exported of [
      (request: Request) => new Response(new URL(request.url).pathname),
      { fetch: async (request: Request) => new Response(new URL(request.url).pathname) },
    ]) {
      const service = testService(exported);
      expect(await (await service.request("/x")).text()).toBe("/x");
      expect((await service.request("/livez")).status).toBe(200);
      await service.stop();
    }
  });

  test("may be nothing else, and the message says what it is", () => {
    for (const [exported, what] of [
      [undefined, "missing"],
      [null, "null"],
      ["text", "a string"],
      [{ routes: [] }, "an object without a fetch function"],
      [Hono, "a class"],
    ] as const)
      expect(() => asSmartService(exported, "x")).toThrow(`its default export is ${what}`);
  });
});
