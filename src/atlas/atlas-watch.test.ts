// Atlas over HTTP: streams, and agents that hold leases and ack.
import { describe, expect, setSystemTime, test } from "bun:test";
import { infoSchema } from "../core/model/answers.ts";
import { deltaSchema, snapshotSchema } from "../core/model/snapshot.ts";
import { ask, atlas, problem, service, useAtlas, watch } from "./fixture-http.ts";
import { changeSchema, problemSchema, writtenSchema } from "./schemas.ts";

useAtlas();

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

  test("whoever sets the machine's clock moves no deadline of theirs, and nothing that is measured", async () => {
    const host = `host-${service}`;
    const stream = await watch(`?agent=${host}&boot=1`);
    const at = infoSchema.parse((await ask("GET", "/v1/info")).body);
    await ack(host, { generation: at.generation, revision: at.revision });
    const { body } = await ask("PUT", `/v1/services/${service}/instances/a`, { port: 5000 });
    const { generation, revision } = writtenSchema.parse(body);
    await ack(host, { generation, revision, tookMs: 7 });
    try {
      setSystemTime(new Date(Date.now() + 3_600_000));
      expect(infoSchema.parse((await ask("GET", "/v1/info")).body).appliedP99Ms).toBeNumber();
    } finally {
      setSystemTime();
      stream.close();
    }
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
