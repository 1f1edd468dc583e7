// Atlas over HTTP: settings, ports and the audit trail.
import { describe, expect, test } from "bun:test";
import { auditSchema, settingsHistorySchema } from "../core/model/answers.ts";
import { ask, problem, service, useAtlas } from "./fixture-http.ts";
import { portWrittenSchema, writtenSchema } from "./schemas.ts";

useAtlas();

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
