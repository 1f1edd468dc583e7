// The watch stream, and what agents and those who wait for them say and ask.
import { z } from "zod";
import { ackSchema, agentSchema, type Rejection } from "../core/model/agent.ts";
import { instanceId } from "../core/model/names.ts";
import { comparePositions, parsePosition, positionSchema } from "../core/model/position.ts";
import { deltaSchema, heartbeatSchema, settingsEventSchema, snapshotSchema } from "../core/model/snapshot.ts";
import { requireNeed, requireOwnHost } from "./access.ts";
import { actorOf, type Parts, written } from "./parts.ts";
import { type Call, route, type Route } from "./router.ts";
import {
  changeSchema,
  hostParams,
  noParams,
  noQuery,
  revisionParams,
  watchQuery,
  writeQuery,
  writtenSchema,
} from "./schemas.ts";
import type { Watcher } from "./watcher.ts";

/** The data of each event of the stream, for readers of the OpenAPI document. */
const eventSchemas = z.union([snapshotSchema, deltaSchema, settingsEventSchema, heartbeatSchema]);

export function agentRoutes(parts: Parts): readonly Route[] {
  const { registry, leases, agents, waits, hub, operations, propagation } = parts;
  return [
    route({
      method: "GET",
      path: "/v1/watch",
      needs: "read",
      summary: "The registry as a stream of server-sent events; with agent= and boot= it holds that host's lease",
      params: noParams,
      query: watchQuery,
      answers: {
        200: { means: "snapshot, delta, settings, heartbeat", schema: eventSchemas, type: "text/event-stream" },
      },
      problems: ["invalid", "conflict", "unavailable"],
      handle: (call) => watch(parts, call),
    }),
    route({
      method: "POST",
      path: "/v1/agents/{host}/acks",
      needs: "lease",
      summary: "This host's HAProxy runs that position",
      params: hostParams,
      query: noQuery,
      body: ackSchema,
      answers: { 200: { means: "noted; the registry's own position", schema: positionSchema } },
      problems: ["invalid", "not_found", "too_large", "wrong_type"],
      handle: ({ params: { host }, body, caller }) => {
        requireOwnHost(caller, host);
        const before = agents.status(host)?.applied;
        agents.acknowledge(host, body);
        // the first of a boot started an HAProxy, and one that repeats itself applied nothing
        if (before !== undefined && comparePositions(before, body) < 0) propagation.note(body.tookMs);
        leases.acked(host);
        const { generation, revision } = registry.state();
        return Response.json({ generation, revision });
      },
    }),
    route({
      method: "GET",
      path: "/v1/agents",
      needs: "read",
      summary: "Every agent whose lease lives, grace included",
      params: noParams,
      query: noQuery,
      answers: { 200: { means: "by host", schema: z.array(agentSchema) } },
      problems: [],
      handle: () => Response.json(agents.list()),
    }),
    route({
      method: "DELETE",
      path: "/v1/agents/{host}",
      needs: "admin",
      summary: "Forget a host that will not return, and its instances",
      params: hostParams,
      query: writeQuery,
      answers: { 200: { means: "forgotten, or unknown already", schema: writtenSchema } },
      problems: ["invalid", "conflict", "not_applied", "unavailable"],
      handle: (call) =>
        written(parts, call, { service: "" }, async () => {
          const changed = await agents.forget(call.params.host, () =>
            operations.removeHost(call.params.host, actorOf(call)),
          );
          const { generation, revision } = registry.state();
          return { generation, revision, changed, created: false };
        }),
    }),
    route({
      method: "GET",
      path: "/v1/changes/{revision}",
      needs: "read",
      summary: "How far a revision has come",
      params: revisionParams,
      query: noQuery,
      answers: { 200: { means: "as the agents acked it so far", schema: changeSchema } },
      problems: ["invalid"],
      handle: ({ params: { revision } }) => {
        const { generation } = registry.state();
        const touched = hub.touchedBy(revision);
        const counts = ({ service, instance }: Rejection): boolean =>
          touched === undefined || touched.has(instance === undefined ? service : instanceId(service, instance));
        return Response.json({ revision, ...waits.progress({ generation, revision }, counts) });
      },
    }),
  ];
}

async function watch(
  { hub, leases, limits, catchUp }: Parts,
  { query, request, peer, caller }: Call<unknown, z.output<typeof watchQuery>, unknown>,
): Promise<Response> {
  const { agent: host, boot, zone, version, service, settings } = query;
  if (host !== undefined) {
    requireNeed(caller, "lease");
    requireOwnHost(caller, host);
  }
  // Last-Event-ID is what a reconnecting EventSource sends by itself, so it is the newer of the two
  const lastEventId = request.headers.get("last-event-id");
  const since = (lastEventId === null ? undefined : parsePosition(lastEventId)) ?? query.since;
  // closed by us: a reader that does not read would keep a connection for ever that is free of the idle limit
  const headers = {
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
    connection: "close",
  };
  // who asks for the head alone must not hold a stream, let alone a lease
  if (request.method === "HEAD") return new Response(null, { headers });
  // before the lease, which an agent that is sent on to another replica must not leave here
  if (since !== undefined) await catchUp.reach(since, request);
  const leaveCount = limits.stream(peer.address, host === undefined ? "reader" : "agent");
  const wanted = { since, caller, services: service && new Set(service), settings: settings && new Set(settings) };
  try {
    let watcher: Watcher;
    if (host === undefined || boot === undefined) watcher = hub.open({ ...wanted, onEnd: leaveCount });
    else {
      const held = cuttable();
      const leave = await leases.connect({ host, boot, zone, version }, held.cut);
      watcher = hub.open({ ...wanted, acks: true, onEnd: both(leave, leaveCount) });
      held.hold(watcher);
    }
    peer.noIdleLimit();
    return new Response(watcher.body, { headers });
  } catch (error) {
    leaveCount();
    throw error;
  }
}

// What lives as long as a stream is made outside of `watch`: a closure made inside would hold on to the whole request.

/** Cuts a stream, also one that opens only afterwards. */
function cuttable(): { readonly cut: (reason: string) => void; readonly hold: (watcher: Watcher) => void } {
  let watcher: Watcher | undefined;
  let cutFor: string | undefined;
  return {
    cut: (reason) => {
      cutFor = reason;
      watcher?.end(reason);
    },
    hold: (opened) => {
      watcher = opened;
      // another stream of this agent came while the lease was being claimed
      if (cutFor !== undefined) watcher.end(cutFor);
    },
  };
}

function both(first: () => void, second: () => void): () => void {
  return () => {
    first();
    second();
  };
}
