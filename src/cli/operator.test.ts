// The operators' commands against a real Atlas in this process.
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type RunningAtlas, startAtlas } from "../atlas/atlas.ts";
import { createAtlasClient } from "../core/api/atlas-client.ts";
import { type Watch, watchAtlas } from "../core/api/watch-client.ts";
import { systemClock } from "../core/lib/clock.ts";
import { silentLogger } from "../core/lib/logger.ts";
import { positionSchema } from "../core/model/position.ts";
import { capture, type Captured } from "./capture.ts";

let atlas: RunningAtlas;
let directory = "";
const agents: Watch[] = [];

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "smartstack-operator-"));
  atlas = await startAtlas({
    listen: { host: "127.0.0.1", port: 0 },
    realm: "test",
    store: { kind: "embedded", dataDir: directory },
  });
});
afterEach(async () => {
  for (const agent of agents.splice(0)) await agent.stop();
  await atlas.stop();
  rmSync(directory, { recursive: true });
});

const smartstack = (...argv: string[]): Promise<Captured> => capture([...argv, "--atlas", atlas.url]);
const ok = async (...argv: string[]): Promise<string> => {
  const { code, stdout, stderr } = await smartstack(...argv);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return stdout.trimEnd();
};
const json = async (...argv: string[]): Promise<unknown> => JSON.parse(await ok(...argv, "--json"));

/** A host's sidecar as far as Atlas can tell: it follows, and it acks what `answer` says. */
async function agent(host: string, answer: "applies" | "is silent" | "refuses" = "applies"): Promise<void> {
  const client = createAtlasClient({ urls: [atlas.url] });
  const { promise: seen, resolve: see } = Promise.withResolvers<void>();
  const watch = watchAtlas(
    {
      urls: [atlas.url],
      realm: "test",
      agent: { host, boot: crypto.randomUUID(), zone: "", version: "1" },
      clock: systemClock,
      logger: silentLogger,
    },
    {
      onState({ generation, revision }, delta) {
        const body = {
          generation,
          revision,
          rejected: answer === "refuses" && delta !== undefined ? [{ service: "identity", error: "line 9" }] : [],
        };
        if (answer === "is silent" && delta !== undefined) return;
        void client
          .request(`/v1/agents/${host}/acks`, { method: "POST", body, schema: positionSchema })
          .then(() => see());
      },
    },
  );
  agents.push(watch);
  await seen;
}

describe("a definition", () => {
  test("is made, edited in part, replaced from a file, and shown", async () => {
    expect(await ok("define", "identity", "owner=core", "retries=5")).toBe("identity defined");
    expect(await ok("define", "identity", "healthcheck.path=/up", "--unset", "retries")).toBe("identity defined");
    expect(await ok("define", "identity", "owner=core")).toBe("identity was so already");
    expect(await json("services", "identity")).toMatchObject({
      definition: { owner: "core", retries: 3, healthcheck: { path: "/up" } },
      instances: [],
    });
    const file = join(directory, "identity.yaml");
    writeFileSync(file, "owner: money\n");
    await ok("define", "identity", "--file", file);
    expect(await json("services", "identity")).toMatchObject({
      definition: { owner: "money", healthcheck: { path: "/healthcheck" } },
    });
    expect(await ok("services", "identity")).toContain("owner                    money\n");
    expect(await ok("services")).toBe(
      "SERVICE    OWNER   INSTANCES   ENABLED   HEALTHY\nidentity   money   0           0         0",
    );
  });

  test("that makes no sense is refused before Atlas hears of it", async () => {
    const file = join(directory, "bad.yaml");
    writeFileSync(file, "owner: 5\ncolour: red\n");
    for (const argv of [
      ["retries=many"],
      ["--file", file],
      ["--file", "/nowhere"],
      ["--file", file, "owner=x"],
      ["owner"],
    ])
      expect([argv, (await smartstack("define", "identity", ...argv)).code]).toEqual([argv, 2]);
    expect((await smartstack("define", "Identity")).code).toBe(2);
    expect(await ok("services")).toBe("no services");
  });
});

describe("an instance", () => {
  test("is registered, disabled, enabled and deregistered, and saying it twice changes nothing", async () => {
    expect(await ok("register", "identity", "host001:5004", "--zone", "a", "--version", "1.0", "--weight", "5")).toBe(
      "identity/host001:5004 registered",
    );
    expect(await ok("register", "identity", "host001:5004", "--zone", "a", "--version", "1.0", "--weight", "5")).toBe(
      "identity/host001:5004 was registered so already",
    );
    expect(await ok("disable", "identity", "host001:5004", "--reason", "new disk")).toBe(
      "identity/host001:5004 disabled",
    );
    expect(await ok("disable", "identity", "host001:5004")).toBe("identity/host001:5004 was disabled already");
    expect(await ok("status")).toContain("identity   0/1           host001 disabled, 0 s (new disk)");
    expect(await ok("register", "identity", "host001:5004")).toBe("identity/host001:5004 registered");
    expect(await json("services", "identity")).toMatchObject({
      instances: [{ enabled: false, zone: "", weight: 100 }],
    });
    expect(await ok("enable", "identity", "host001:5004")).toBe("identity/host001:5004 enabled");
    expect(await ok("deregister", "identity", "host001:5004")).toBe("identity/host001:5004 deregistered");
    expect(await ok("deregister", "identity", "host001:5004")).toBe("identity/host001:5004 was not there");
    expect((await json("audit", "--limit", "3")) as unknown[]).toHaveLength(3);
    expect(await ok("audit")).toContain("new disk");
  });

  test("can be registered disabled, at another address, with IPv6", async () => {
    await ok("register", "redis", "[::1]:6379", "--disabled", "--address", "10.0.0.1");
    expect(await json("services", "redis")).toMatchObject({
      instances: [{ instance: "[::1]:6379", host: "::1", address: "10.0.0.1", port: 6379, enabled: false }],
    });
    expect(await ok("services", "redis")).toContain("[::1]:6379   10.0.0.1:6379   disabled");
  });

  test("that is named badly or is not there is an error that says what would be right", async () => {
    await ok("register", "identity", "host001:5004");
    expect(await smartstack("disable", "identity", "host001")).toEqual({
      code: 1,
      stdout: "",
      stderr:
        "smartstack: Atlas refused PATCH /v1/services/identity/instances/host001: identity has no instance host001\nidentity has host001:5004.\n",
    });
    for (const argv of [
      ["disable"],
      ["disable", "identity"],
      ["disable", "identity", "host 1"],
      ["disable", "identity", "host001:5004", "--host", "host001"],
      ["register", "identity", "host001"],
      ["register", "identity", "host001", "--port", "0"],
      ["deregister", "identity", "host001:5004", "--force"],
    ])
      expect([argv, (await smartstack(...argv)).code]).toEqual([argv, 2]);
  });

  test("goes with its service only by force", async () => {
    await ok("register", "identity", "host001:5004");
    expect(await smartstack("deregister", "identity")).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("--force"),
    });
    expect(await ok("deregister", "identity", "--force")).toBe("identity deregistered");
    expect(await ok("services")).toBe("no services");
  });
});

describe("a whole host", () => {
  beforeEach(async () => {
    for (const [service, instance] of [
      ["identity", "host001:5004"],
      ["identity", "host002:5004"],
      ["billing", "host001:5005"],
    ])
      await ok("register", service ?? "", instance ?? "");
  });

  test("is disabled at once, or one service of it", async () => {
    expect(await ok("disable", "billing", "--host", "host001")).toBe("billing/host001:5005 disabled");
    expect((await ok("disable", "--host", "host001")).split("\n").toSorted()).toEqual([
      "billing/host001:5005 was disabled already",
      "identity/host001:5004 disabled",
    ]);
    expect(await json("enable", "--host", "host001")).toMatchObject([{ changed: true }, { changed: true }]);
  });

  test("that has nothing is an error that names those that have", async () => {
    expect(await smartstack("disable", "--host", "host009")).toMatchObject({
      code: 1,
      stderr: "smartstack: no instance is registered on host009\nHosts with instances: host001, host002.\n",
    });
  });
});

describe("waiting until a change is applied", () => {
  beforeEach(() => ok("register", "identity", "host001:5004"));

  test("says how many hosts run it and how long that took", async () => {
    expect(await ok("disable", "identity", "host001:5004", "--wait")).toBe(
      "identity/host001:5004 disabled; no host has a sidecar yet",
    );
    await agent("host001");
    await agent("host002");
    expect(await ok("enable", "identity", "host001:5004", "--wait")).toMatch(
      /^identity\/host001:5004 enabled, applied on 2 of 2 hosts in \d+ ms$/,
    );
    expect(await ok("agents")).toContain("host002");
    expect(await ok("status")).toContain("2/2 hosts applied");
  });

  test("ends with 4 and names who is late; the change stands, and asking again waits again", async () => {
    await agent("host001");
    await agent("host002", "is silent");
    const disable = ["disable", "identity", "host001:5004", "--wait", "--timeout", "300ms"];
    const late = await smartstack(...disable);
    expect(late.code).toBe(4);
    expect(late.stderr).toBe(
      "smartstack: identity/host001:5004 is disabled, but not every host applied it within 300 ms\n  pending: host002\nIt stands in Atlas; those hosts take it as soon as they can. smartstack agents shows them.\n",
    );
    expect(await json("services", "identity")).toMatchObject({ instances: [{ enabled: false }] });
    expect(await smartstack(...disable)).toMatchObject({
      code: 4,
      stderr: expect.stringContaining("it was so already"),
    });
    expect(await smartstack(...disable, "--json")).toMatchObject({ stdout: expect.stringContaining('"not_applied"') });
  });

  test("ends with 1 when a host refuses", async () => {
    await agent("host001", "refuses");
    const refused = await smartstack("define", "identity", "owner=core", "--wait");
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain(
      "identity is defined, but a host refused it\n  host001 refused identity: line 9\n",
    );
    expect(await ok("status")).toContain("HOST host001  HAProxy refused identity (line 9)");
  });
});

describe("settings", () => {
  test("are set, read, edited, replaced, and their history kept", async () => {
    expect(await ok("settings", "get", "identity")).toBe("identity has no settings");
    expect(await ok("settings", "set", "identity", "REDIS_DB=2", "VERSION=1.10")).toBe(
      "identity has settings version 1",
    );
    expect(await ok("settings", "set", "identity", "REDIS_DB=2")).toBe("identity was set so already");
    expect(await ok("settings", "set", "identity", "--unset", "VERSION", 'LIST=["a"]')).toBe(
      "identity has settings version 2",
    );
    expect(await ok("settings", "get", "identity")).toBe('KEY        VALUE\nREDIS_DB   2\nLIST       ["a"]\nversion 2');
    expect(await ok("settings", "get", "identity", "LIST")).toBe('["a"]');
    const file = join(directory, "settings.json");
    writeFileSync(file, '{"A": "b"}');
    await ok("settings", "set", "identity", "--file", file, "--reason", "afresh");
    expect(await json("settings", "get", "identity")).toMatchObject({ version: 3, values: { A: "b" } });
    expect((await json("settings", "history", "identity")) as unknown[]).toHaveLength(3);
    expect(await ok("audit", "--limit", "1")).toContain("afresh");
  });

  test("set by several people at the same moment all arrive", async () => {
    const names = ["A", "B", "C", "D"];
    await Promise.all(
      names.map((name) =>
        Bun.$`${process.execPath} ${join(import.meta.dir, "../main.ts")} settings set identity ${`${name}=1`} --atlas ${atlas.url}`.quiet(),
      ),
    );
    expect(await json("settings", "get", "identity")).toMatchObject({ version: 4, values: { A: 1, B: 1, C: 1, D: 1 } });
  });

  test("that make no sense are refused", async () => {
    for (const argv of [["a-b=1"], [], ["x"], ["A=1", "--file", "/nowhere"], ["--file", "/nowhere"]])
      expect([argv, (await smartstack("settings", "set", "identity", ...argv)).code]).toEqual([argv, 2]);
    expect(await smartstack("settings", "get", "identity", "NOPE")).toMatchObject({
      code: 1,
      stderr: "smartstack: NOPE is not set for identity\nNothing is.\n",
    });
  });
});

test("ports are reserved, listed and released", async () => {
  expect(await ok("ports")).toBe("no port is reserved");
  expect(await ok("ports", "reserve", "identity")).toBe("identity has port 5000");
  expect(await ok("ports", "reserve", "identity")).toBe("identity has port 5000");
  expect(await ok("ports")).toBe("PORT   SERVICE\n5000   identity");
  expect(await ok("ports", "release", "identity")).toBe("identity's port is free again");
  expect(await ok("ports", "release", "identity")).toBe("identity had no port");
});

test("a host that will not return is forgotten", async () => {
  await agent("host001");
  expect(await ok("agents")).toContain("host001");
  await agents.pop()?.stop();
  // Atlas notices a moment later that the stream is gone; until then it refuses
  let forgotten = await smartstack("agents", "forget", "host001");
  for (let turn = 0; turn < 100 && forgotten.code !== 0; turn += 1)
    forgotten = await smartstack("agents", "forget", "host001");
  expect(forgotten).toEqual({ code: 0, stdout: "host001 forgotten\n", stderr: "" });
  expect(await ok("agents", "forget", "host001")).toBe("host001 was not known");
  expect(await ok("agents")).toBe("no hosts");
  expect((await smartstack("agents", "forget", "host 1")).code).toBe(2);
});

test("every command ends with 3 and says what to check when nobody answers", async () => {
  const url = atlas.url;
  await atlas.stop();
  for (const argv of [
    ["status"],
    ["services"],
    ["services", "identity"],
    ["agents"],
    ["audit"],
    ["watch"],
    ["ports"],
    ["enable", "identity", "host001"],
    ["disable", "--host", "host001"],
    ["define", "identity"],
    ["register", "identity", "host001:1"],
    ["deregister", "identity"],
    ["settings", "get", "identity"],
    ["settings", "set", "identity", "A=1"],
  ])
    expect([argv, await capture([...argv, "--atlas", url])]).toEqual([
      argv,
      {
        code: 3,
        stdout: "",
        stderr: `smartstack: could not reach Atlas: ${url}: nobody listens there\nIs it running, and is --atlas (or SMARTSTACK_ATLAS) its address?\n`,
      },
    ]);
  expect(await capture(["why", "identity", "--admin", "127.0.0.1:1"])).toMatchObject({
    code: 3,
    stderr: expect.stringContaining("could not reach the sidecar at http://127.0.0.1:1: nobody listens there"),
  });
});

describe("of several addresses", () => {
  const services = (...urls: string[]): Promise<Captured> => capture(["services", "--atlas", urls.join(",")]);

  test("one that nobody listens at is passed over", async () => {
    expect(await services("http://127.0.0.1:1", atlas.url)).toMatchObject({ code: 0, stderr: "" });
  });

  test("one that takes requests and never answers costs nothing", async () => {
    const hole = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => undefined } });
    try {
      expect(await services(`http://127.0.0.1:${hole.port}`, atlas.url)).toMatchObject({ code: 0, stderr: "" });
    } finally {
      hole.stop(true);
    }
  });

  test("one that is not ready is asked only when no other is", async () => {
    const unready = Bun.serve({ port: 0, fetch: () => new Response("{}", { status: 503 }) });
    try {
      expect(await services(unready.url.origin, atlas.url)).toMatchObject({ code: 0 });
      expect(await services(unready.url.origin, "http://127.0.0.1:1")).toMatchObject({ code: 1 });
    } finally {
      await unready.stop(true);
    }
  });

  test("all are named when none answers", async () => {
    expect(await services("http://127.0.0.1:1", "http://127.0.0.1:2")).toMatchObject({
      code: 3,
      stderr: expect.stringMatching(/127\.0\.0\.1:1: nobody listens there; http:\/\/127\.0\.0\.1:2: nobody/),
    });
  });
});

test("a token file holds one token and never shows it", async () => {
  const file = join(directory, "token");
  for (const [content, complaint] of [
    ["", "is empty"],
    ["hunter2 hunter3\n", "holds more than one plain token"],
    ["hunter2\nhunter3\n", "holds more than one plain token"],
    ["h\u00fcnter2", "holds more than one plain token"],
  ] as const) {
    writeFileSync(file, content);
    const { code, stderr } = await smartstack("services", "--token-file", file);
    expect([code, stderr.includes(complaint), stderr.includes("nter2")]).toEqual([2, true, false]);
  }
  writeFileSync(file, "hunter2\n");
  expect(await smartstack("services", "--token-file", file)).toMatchObject({ code: 0 });
});
