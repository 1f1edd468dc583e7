// Who this Atlas is and how it feels.
import { hostname } from "node:os";
import { z } from "zod";
import type { Registry as MetricsRegistry } from "../core/lib/metrics.ts";
import { metricsResponse } from "../core/lib/metrics.ts";
import { ProblemFault } from "../core/lib/http.ts";
import { VERSION } from "../core/lib/version.ts";
import { infoSchema } from "../core/model/answers.ts";
import { mayRead } from "./access.ts";
import { openApiDocument } from "./openapi.ts";
import type { Parts } from "./parts.ts";
import { route, type Route } from "./router.ts";
import { healthcheckSchema, noParams, noQuery, statusSchema } from "./schemas.ts";

/** For how long a result of `/healthcheck` is good, in s: as Runscope's library has it for passes and failures. */
const EXPIRES_S = { passed: 27, failed: 9 };

export function healthRoutes(parts: Parts, metrics: MetricsRegistry, others: readonly Route[]): readonly Route[] {
  const { registry, store, clock, degraded, replicas, propagation } = parts;
  const own: readonly Route[] = [
    route({
      method: "GET",
      path: "/v1/info",
      needs: "read",
      summary: "Which realm this is, where it stands, and what does not work",
      params: noParams,
      query: noQuery,
      answers: { 200: { means: "this replica's view", schema: infoSchema } },
      problems: [],
      handle: () => {
        const { generation, revision } = registry.state();
        const reasons = degraded();
        const p99 = propagation.p99();
        return Response.json({
          realm: registry.realm,
          version: VERSION,
          generation,
          revision,
          store,
          replicas: replicas(),
          ...(p99 === undefined ? {} : { appliedP99Ms: Math.round(p99) }),
          ...(reasons.length === 0 ? {} : { degraded: reasons }),
        });
      },
    }),
    route({
      method: "GET",
      path: "/livez",
      needs: "nothing",
      summary: "The process answers",
      params: noParams,
      query: noQuery,
      answers: { 200: { means: "alive", schema: statusSchema } },
      problems: [],
      handle: () => Response.json({ status: "alive" }),
    }),
    route({
      method: "GET",
      path: "/readyz",
      needs: "nothing",
      summary: "Reads and watches can be served; what does not work is in degraded",
      params: noParams,
      query: noQuery,
      answers: { 200: { means: "ready, if degraded", schema: statusSchema } },
      problems: ["unavailable"],
      handle: ({ caller }) => {
        // they name hosts and addresses
        const reasons = degraded().map((reason) => (mayRead(caller) ? reason : "something; a token shows what"));
        if (!registry.ready())
          throw new ProblemFault("unavailable", reasons.join("; "), { extra: { degraded: reasons } });
        return Response.json({ status: "ready", degraded: reasons });
      },
    }),
    route({
      method: "GET",
      path: "/healthcheck",
      needs: "read",
      summary: "The same in the shape that services of this kind answer",
      params: noParams,
      query: noQuery,
      answers: {
        200: { means: "all passed", schema: healthcheckSchema },
        500: { means: "something failed", schema: healthcheckSchema },
      },
      problems: [],
      handle: () => {
        const reasons = degraded();
        // degraded is no failure: whoever balances over the replicas by this would take all of them out at once
        const passed = registry.ready();
        const timestamp = clock.now() / 1_000;
        const expires = timestamp + (passed ? EXPIRES_S.passed : EXPIRES_S.failed);
        const output = reasons.length === 0 ? "the store reads and writes" : reasons.join("; ");
        return Response.json(
          {
            hostname: hostname(),
            status: passed ? "success" : "failure",
            timestamp,
            results: [{ checker: "registry", output, passed, timestamp, expires }],
          },
          { status: passed ? 200 : 500 },
        );
      },
    }),
    route({
      method: "GET",
      path: "/metrics",
      needs: "read",
      summary: "Metrics in the Prometheus text format",
      params: noParams,
      query: noQuery,
      answers: { 200: { means: "as of now", schema: z.string(), type: "text/plain" } },
      problems: [],
      handle: () => metricsResponse(metrics),
    }),
  ];
  const openApi: Route = route({
    method: "GET",
    path: "/openapi.json",
    needs: "nothing",
    summary: "This description",
    params: noParams,
    query: noQuery,
    answers: { 200: { means: "OpenAPI 3.1", schema: z.looseObject({ openapi: z.literal("3.1.0") }) } },
    problems: [],
    handle: () => {
      document ??= openApiDocument([...others, ...own, openApi]);
      return Response.json(document);
    },
  });
  let document: unknown;
  return [...own, openApi];
}
