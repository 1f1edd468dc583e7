import { afterEach, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errorCode, type Fault } from "../lib/errors.ts";
import { problemResponse } from "../lib/problem.ts";
import { createSidecarClient, SidecarProblem } from "./sidecar-client.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function sidecar(answer: (request: Request) => Response | Promise<Response>) {
  const directory = await mkdtemp(join(tmpdir(), "smartstack-"));
  const socket = join(directory, "sidecar.sock");
  const server = Bun.serve({ unix: socket, fetch: answer });
  cleanups.push(() => rm(directory, { recursive: true }));
  cleanups.push(() => server.stop(true));
  return { socket, server };
}

test("it says what it wants over the socket, and reads the answer", async () => {
  const seen: { line: string; body: unknown }[] = [];
  const { socket } = await sidecar(async (request) => {
    const { pathname, search } = new URL(request.url);
    const text = await request.text();
    seen.push({ line: `${request.method} ${pathname}${search}`, body: text === "" ? undefined : JSON.parse(text) });
    return Response.json({ generation: 1, revision: 2, registered: true, newer: "field" });
  });
  const client = createSidecarClient({ socket });
  const written = { generation: 1, revision: 2, registered: true };
  expect(await client.put("identity", "here:5000", { port: 5000 })).toEqual(written);
  expect(await client.drain("identity", "here:5000", 1_500)).toEqual(written);
  expect(await client.deregister("identity", "here:5000")).toEqual(written);
  expect(seen).toEqual([
    { line: "PUT /v1/local/identity/here%3A5000", body: { port: 5000 } },
    { line: "PATCH /v1/local/identity/here%3A5000?wait=applied&timeout=1500ms", body: { draining: true } },
    { line: "DELETE /v1/local/identity/here%3A5000", body: undefined },
  ]);
});

test("a problem keeps its code and its members", async () => {
  const { socket } = await sidecar(() =>
    problemResponse({
      code: "not_applied",
      status: 504,
      detail: "slow",
      requestId: "r",
      extra: { pending: ["host9"] },
    }),
  );
  const error: unknown = await createSidecarClient({ socket })
    .drain("identity", "here:5000", 10)
    .catch((error: unknown) => error);
  expect(error).toBeInstanceOf(SidecarProblem);
  expect(error).toMatchObject({ code: "not_applied", status: 504, body: { pending: ["host9"] } });
});

test("no sidecar is said so, with what to do", async () => {
  const { socket, server } = await sidecar(() => new Response());
  await server.stop(true);
  for (const address of [{ socket }, { socket: "/nowhere/sidecar.sock" }, { url: "http://127.0.0.1:9" }]) {
    const error: unknown = await createSidecarClient(address)
      .info()
      .catch((error: unknown) => error);
    expect(errorCode(error)).toBe("unreachable");
    expect((error as Fault).hint).toContain("smartstack sidecar");
  }
});

test("something else on that address is noticed", async () => {
  const { socket } = await sidecar(() => Response.json({ hello: "world" }));
  const error: unknown = await createSidecarClient({ socket })
    .info()
    .catch((error: unknown) => error);
  expect(errorCode(error)).toBe("bad_answer");
});
