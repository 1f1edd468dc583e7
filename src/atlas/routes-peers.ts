// What one replica asks another.
import { z } from "zod";
import { feedSchemas, presenceSchema } from "./peer-messages.ts";
import type { Parts } from "./parts.ts";
import { route, type Route } from "./router.ts";
import { hostParams, noParams, noQuery } from "./schemas.ts";

const feedQuery = z.object({
  /** Who asks, for the log. */
  replica: z.string().max(200).optional(),
});

export function peerRoutes({ feed, leases }: Parts): readonly Route[] {
  return [
    route({
      method: "GET",
      path: "/v1/peer/feed",
      needs: "peer",
      summary: "For other replicas: the acks that come here and what is waited for here, as server-sent events",
      params: noParams,
      query: feedQuery,
      answers: {
        200: {
          means: Object.keys(feedSchemas).join(", "),
          schema: z.union(Object.values(feedSchemas)),
          type: "text/event-stream",
        },
      },
      problems: ["unavailable"],
      handle: ({ request, peer }) => {
        const headers = { "content-type": "text/event-stream", "cache-control": "no-store", connection: "close" };
        if (request.method === "HEAD") return new Response(null, { headers });
        const { body } = feed.open();
        peer.noIdleLimit();
        return new Response(body, { headers });
      },
    }),
    route({
      method: "GET",
      path: "/v1/peer/agents/{host}",
      needs: "peer",
      summary: "For other replicas: the boot of that host's agent, if it is live here",
      params: hostParams,
      query: noQuery,
      answers: { 200: { means: "null: none is", schema: presenceSchema } },
      problems: ["invalid"],
      handle: ({ params: { host } }) => Response.json({ boot: leases.presence(host) ?? null }),
    }),
  ];
}
