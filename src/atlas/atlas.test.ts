// Atlas over HTTP, in this process: what its callers may rely on of services and instances, and of Atlas itself.
import { describe, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errorCode } from "../core/lib/errors.ts";
import { auditSchema, infoSchema } from "../core/model/answers.ts";
import { type RunningAtlas, startAtlas } from "./atlas.ts";
import { ask, atlas, directory, problem, service, useAtlas, watch } from "./fixture-http.ts";
import { serviceSchema, writtenSchema } from "./schemas.ts";

useAtlas();

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

  test("is removed as expired by its agent, who says so, and by nobody else", async () => {
    const path = `/v1/services/${service}/instances/given-up`;
    await ask("PUT", path, { port: 5000, agent: "host001" });
    expect((await ask("DELETE", `${path}?expired=true`)).status).toBe(400);
    const removed = await ask("DELETE", `${path}?agent=host001&expired=true`);
    expect([removed.status, removed.body.changed]).toEqual([200, true]);
    const [entry] = auditSchema.parse((await ask("GET", "/v1/audit?limit=1")).body);
    expect(entry).toMatchObject({ kind: "instance.delete", who: "host001" });
    const { json } = await (await watch(`?service=${service}`)).next("snapshot");
    expect(json["removed"]).toMatchObject([{ id: `${service}/given-up`, reason: "expired" }]);
  });

  test("may have an IPv6 host", async () => {
    const path = `/v1/services/${service}/instances/${encodeURIComponent("[::1]:5000")}`;
    expect((await ask("PUT", path, { port: 5000 })).status).toBe(201);
    expect((await ask("GET", path)).body).toMatchObject({ host: "::1", address: "::1", instance: "[::1]:5000" });
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
    startAtlas({ listen: { host: "127.0.0.1", port }, realm: "local", store: { kind: "embedded", dataDir } });
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
