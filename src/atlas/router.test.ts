// What the router does before a route's own work: who is admitted, and how many at a time.
import { expect, test } from "bun:test";
import { z } from "zod";
import { Access, type Need } from "./access.ts";
import { Limits } from "./limits.ts";
import { createRouter, route, type Route } from "./router.ts";

const nothing = z.object({});
const peer = { address: "127.0.0.1", noIdleLimit: () => () => undefined };
const ask = (path: string): Request => new Request(`http://atlas${path}`);

function routeOf(path: string, needs: Need, handle: () => Promise<Response> | Response, type?: string): Route {
  return route({
    method: "GET",
    path,
    needs,
    summary: path,
    params: nothing,
    query: nothing,
    answers: { 200: { means: "done", ...(type === undefined ? {} : { type }) } },
    problems: [],
    handle,
  });
}

function routerOf(limits: Limits, routes: readonly Route[]) {
  return createRouter({
    routes,
    limits,
    access: new Access({ tokens: undefined, peerTokens: undefined }),
    onBug: (error) => {
      throw error;
    },
    onAnswer: () => undefined,
  });
}

test("a request too many is told to come back; probes, acks, peers and streams are not among them", async () => {
  const limits = new Limits();
  const done = (): Response => new Response("done");
  const respond = routerOf(limits, [
    routeOf("/v1/read", "read", done),
    routeOf("/livez", "nothing", done),
    routeOf("/v1/acks", "lease", done),
    routeOf("/v1/peer", "peer", done),
    routeOf("/v1/watch", "read", done, "text/event-stream"),
  ]);
  const leaves = Array.from({ length: 1_024 }, () => limits.request("127.0.0.1"));
  const refused = await respond(ask("/v1/read"), peer);
  expect([refused.status, refused.headers.get("retry-after")]).toEqual([503, "1"]);
  for (const path of ["/livez", "/v1/acks", "/v1/peer", "/v1/watch"])
    expect([path, (await respond(ask(path), peer)).status]).toEqual([path, 200]);
  leaves[0]?.();
  expect((await respond(ask("/v1/read"), peer)).status).toBe(200);
  // it gave its place back
  expect((await respond(ask("/v1/read"), peer)).status).toBe(200);
});

test("a request that fails gives its place back", async () => {
  const limits = new Limits();
  const fail = (): Response => {
    throw new z.ZodError([]);
  };
  const respond = routerOf(limits, [routeOf("/v1/read", "read", fail)]);
  for (let round = 0; round < 1_100; round += 1) expect((await respond(ask("/v1/read"), peer)).status).toBe(400);
});
