// Atlas over HTTP: what it says to bad input.
import { describe, expect, test } from "bun:test";
import { MAX_BODY_BYTES } from "./body.ts";
import { type Answer, ask, atlas, problem, service, useAtlas } from "./fixture-http.ts";

useAtlas();

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
