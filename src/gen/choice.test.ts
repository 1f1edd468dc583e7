import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createAtlasClient } from "../core/api/atlas-client.ts";
import { choosePort, type PortChoice } from "./choice.ts";
import { freePort } from "../e2e/process.ts";
import { holdPort } from "./port.ts";
import { isRegistered } from "./reservation.ts";

let directory = "";
let server: ReturnType<typeof Bun.serve> | undefined;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-choice-"));
});
afterEach(async () => {
  await server?.stop(true);
  server = undefined;
  await rm(directory, { recursive: true });
});

/** An Atlas that knows ports and one service; `answer` goes before it. */
const atlas = (ports: Map<string, number>, next: number, answer?: (request: Request) => Response | undefined) => {
  server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    async fetch(request) {
      const own = answer?.(request);
      if (own !== undefined) return own;
      const { pathname } = new URL(request.url);
      if (pathname === "/v1/services/known") return Response.json({});
      if (pathname.startsWith("/v1/services/"))
        return Response.json({ code: "not_found", detail: "no such service", status: 404 }, { status: 404 });
      if (request.method === "GET") return Response.json([...ports].map(([service, port]) => ({ service, port })));
      if (request.method === "DELETE") return Response.json({ deleted: ports.delete(pathname.split("/")[3] ?? "") });
      const { service } = (await request.json()) as { service: string };
      const had = ports.get(service);
      ports.set(service, had ?? next);
      return Response.json({ service, port: had ?? next }, { status: had === undefined ? 201 : 200 });
    },
  });
  return createAtlasClient({ urls: [`http://127.0.0.1:${server.port}`] });
};
const choose = (request: Partial<Parameters<typeof choosePort>[0]>): Promise<PortChoice> =>
  choosePort({
    service: "identity",
    given: undefined,
    target: join(directory, "identity"),
    atlas: undefined,
    dryRun: false,
    ...request,
  });

test("Atlas reserves, and has the reservation back when the run fails", async () => {
  const ports = new Map([["billing", 5000]]);
  const port = await freePort();
  const choice = await choose({ atlas: atlas(ports, port) });
  expect([choice.port, choice.origin]).toEqual([port, "reserved in Atlas"]);
  expect(ports.get("identity")).toBe(port);
  await choice.release();
  await choice.undo();
  expect([...ports.keys()]).toEqual(["billing"]);
});

test("a reservation from before is used, and kept when the run fails", async () => {
  const port = await freePort();
  const ports = new Map([["identity", port]]);
  const choice = await choose({ atlas: atlas(ports, 5000) });
  expect([choice.port, choice.origin]).toEqual([port, "reserved in Atlas before"]);
  await choice.release();
  await choice.undo();
  expect(ports.get("identity")).toBe(port);
});

test("a dry run foresees the port and reserves none", async () => {
  const ports = new Map([
    ["billing", 5000],
    ["ads", 5001],
  ]);
  const choice = await choose({ atlas: atlas(ports, 7), dryRun: true });
  expect([choice.port, choice.origin]).toEqual([5002, "free in Atlas"]);
  await choice.release();
  expect(ports.size).toBe(2);
});

test("an Atlas that refuses is a remark, and the port is a free one of this machine", async () => {
  const refusing = atlas(new Map(), 5000, () =>
    Response.json({ code: "unauthorized", detail: "no token", status: 401 }, { status: 401 }),
  );
  const choice = await choose({ atlas: refusing });
  expect(choice.origin).toBe("free here, not from Atlas");
  expect(choice.note).toContain("no token");
  await choice.release();
});

test("an Atlas that goes away over the reservation is a failure: it may have reserved", async () => {
  const client = atlas(new Map(), 5000);
  await server?.stop(true);
  expect(choose({ atlas: client })).rejects.toMatchObject({ code: "unreachable" });
});

test("--port is taken as it is, unless Atlas gave that port to another service", async () => {
  const port = await freePort();
  const client = atlas(new Map([["billing", port]]), 5000);
  expect(choose({ atlas: client, given: port })).rejects.toMatchObject({
    code: "taken",
    message: `port ${port} is reserved for billing in Atlas`,
  });
  const mine = await choose({ atlas: client, given: port, service: "billing" });
  expect(mine.origin).toBe("given, reserved in Atlas");
  await mine.release();
});

test("a given port that somebody listens on is a remark: the service will run on other hosts", async () => {
  const held = await holdPort(await freePort());
  const choice = await choose({ given: held?.port });
  expect(choice.note).toContain(`listens on port ${held?.port}`);
  await held?.release();
});

test("a port that a project beside it has, too, is a remark", async () => {
  const port = await freePort();
  await mkdir(join(directory, "billing"));
  await writeFile(join(directory, "billing/smartstack.yaml"), `name: billing\nport: ${port}\n`);
  const choice = await choose({ atlas: atlas(new Map(), port) });
  expect(choice.note).toBe(`a project beside this one has port ${port}, too`);
  await choice.release();
});

test("a project that is there keeps its port", async () => {
  await mkdir(join(directory, "identity"));
  await writeFile(join(directory, "identity/smartstack.yaml"), "name: identity\nport: 5123\n");
  const choice = await choose({});
  expect([choice.port, choice.origin]).toEqual([5123, "as before"]);
});

test("whether Atlas knows a name: yes, no, or why it cannot say", async () => {
  const client = atlas(new Map(), 5000);
  expect(await isRegistered(client, "known")).toEqual({ kind: "known", value: true });
  expect(await isRegistered(client, "new")).toEqual({ kind: "known", value: false });
  const page = atlas(new Map(), 5000, () => new Response("<h1>not Atlas</h1>", { status: 404 }));
  expect(await isRegistered(page, "new")).toMatchObject({ kind: "unknown", reason: "refused" });
  const nobody = createAtlasClient({ urls: [`http://127.0.0.1:${await freePort()}`] });
  expect(await isRegistered(nobody, "new")).toMatchObject({ kind: "unknown", reason: "away" });
});
