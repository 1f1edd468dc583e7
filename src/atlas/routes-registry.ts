// Services and their instances over HTTP.
import { instanceSchema, patchInstanceSchema, putInstanceSchema } from "../core/model/instance.ts";
import { definitionSchema, serviceSummarySchema } from "../core/model/service.ts";
import { ProblemFault } from "../core/lib/http.ts";
import { z } from "zod";
import { refuseAgent, requireOwnHost } from "./access.ts";
import { actorOf, type Parts, written } from "./parts.ts";
import { route, type Route } from "./router.ts";
import {
  agentQuery,
  removeQuery,
  forceQuery,
  instanceParams,
  noParams,
  noQuery,
  publishQuery,
  serviceParams,
  serviceSchema,
  writeQuery,
  writtenSchema,
} from "./schemas.ts";

const WRITTEN = {
  200: { means: "changed, or so already", schema: writtenSchema },
  201: { means: "new", schema: writtenSchema },
} as const;
const CHANGED = { 200: WRITTEN[200] } as const;
const WAITING = ["rejected", "not_applied", "unavailable"] as const;

export function registryRoutes(parts: Parts): readonly Route[] {
  const { registry, operations } = parts;
  return [
    route({
      method: "GET",
      path: "/v1/services",
      needs: "read",
      summary: "Every service, with counts of its instances",
      params: noParams,
      query: noQuery,
      answers: { 200: { means: "by name", schema: z.array(serviceSummarySchema) } },
      problems: [],
      handle: () => Response.json(summaries(parts)),
    }),
    route({
      method: "PUT",
      path: "/v1/services/{service}",
      needs: "instances",
      summary: "Define a service; with publish=true as the service itself, and operators' edits win",
      params: serviceParams,
      query: publishQuery,
      body: definitionSchema,
      answers: WRITTEN,
      problems: ["invalid", "conflict", "too_large", "wrong_type", ...WAITING],
      handle: (call) =>
        written(parts, call, call.params, () => {
          if (call.query.publish !== true) refuseAgent(call.caller, "to define a service (without publish=true)");
          const define = call.query.publish === true ? "publishService" : "putService";
          return operations[define](call.params.service, call.body, actorOf(call));
        }),
    }),
    route({
      method: "GET",
      path: "/v1/services/{service}",
      needs: "read",
      summary: "A service's definition and its instances",
      params: serviceParams,
      query: noQuery,
      answers: { 200: { means: "as it is now", schema: serviceSchema } },
      problems: ["invalid", "not_found"],
      handle: ({ params: { service } }) => {
        const definition = registry.state().services.get(service);
        if (definition === undefined) throw new ProblemFault("not_found", `there is no service ${service}`);
        return Response.json({ definition, instances: registry.instancesOf(service) });
      },
    }),
    route({
      method: "DELETE",
      path: "/v1/services/{service}",
      needs: "deploy",
      summary: "Remove a service; with force=true its instances too",
      params: serviceParams,
      query: forceQuery,
      answers: CHANGED,
      problems: ["invalid", "conflict", ...WAITING],
      handle: (call) =>
        written(parts, call, call.params, () =>
          operations.deleteService(call.params.service, call.query.force === true, actorOf(call)),
        ),
    }),
    route({
      method: "GET",
      path: "/v1/services/{service}/instances/{instance}",
      needs: "read",
      summary: "One instance",
      params: instanceParams,
      query: noQuery,
      answers: { 200: { means: "as it is now", schema: instanceSchema } },
      problems: ["invalid", "not_found"],
      handle: ({ params: { service, instance } }) => {
        const found = registry.state().instances.get(`${service}/${instance}`);
        if (found === undefined) throw new ProblemFault("not_found", `${service} has no instance ${instance}`);
        return Response.json(found);
      },
    }),
    route({
      method: "PUT",
      path: "/v1/services/{service}/instances/{instance}",
      needs: "instances",
      summary: "Register an instance; without enabled the operator's last word stays",
      params: instanceParams,
      query: writeQuery,
      body: putInstanceSchema,
      answers: WRITTEN,
      problems: ["invalid", "too_large", "wrong_type", ...WAITING],
      handle: (call) =>
        written(parts, call, call.params, () => {
          const { service, instance } = call.params;
          requireOwnHost(call.caller, call.body.agent);
          if (call.body.enabled !== undefined) refuseAgent(call.caller, "to say enabled");
          return operations.putInstance(service, instance, call.body, actorOf(call, call.body.agent));
        }),
    }),
    route({
      method: "PATCH",
      path: "/v1/services/{service}/instances/{instance}",
      needs: "instances",
      summary: "Change an instance: enable, disable, weigh, drain, say whether it is healthy",
      params: instanceParams,
      query: agentQuery,
      body: patchInstanceSchema,
      answers: CHANGED,
      problems: ["invalid", "not_found", "too_large", "wrong_type", ...WAITING],
      handle: (call) =>
        written(parts, call, call.params, () => {
          const { service, instance } = call.params;
          requireOwnHost(call.caller, call.query.agent);
          if (call.body.enabled !== undefined) refuseAgent(call.caller, "to say enabled");
          return operations.patchInstance(service, instance, call.body, actorOf(call, call.query.agent));
        }),
    }),
    route({
      method: "DELETE",
      path: "/v1/services/{service}/instances/{instance}",
      needs: "instances",
      summary:
        "Remove an instance and the operator's intent; with agent=HOST as its agent, and the intent stays (expired=true: it was given up)",
      params: instanceParams,
      query: removeQuery,
      answers: CHANGED,
      problems: ["invalid", "conflict", ...WAITING],
      handle: (call) =>
        written(parts, call, call.params, () => {
          const { service, instance } = call.params;
          const { agent, expired } = call.query;
          requireOwnHost(call.caller, agent);
          if (expired === true && agent === undefined) {
            throw new ProblemFault("invalid", "only an agent can say that an instance expired: expired needs agent");
          }
          const reason = expired === true ? "expired" : "deregistered";
          return operations.deleteInstance(service, instance, agent, actorOf(call, agent), reason);
        }),
    }),
  ];
}

function summaries({ registry }: Parts): readonly z.output<typeof serviceSummarySchema>[] {
  const { services, instances } = registry.state();
  const counts = new Map(
    [...services].map(([service, { owner }]) => [service, { service, owner, instances: 0, enabled: 0, healthy: 0 }]),
  );
  for (const { service, enabled, healthy } of instances.values()) {
    const count = counts.get(service);
    if (count === undefined) continue;
    count.instances += 1;
    if (enabled) count.enabled += 1;
    if (healthy === true) count.healthy += 1;
  }
  return [...counts.values()].sort((a, b) => a.service.localeCompare(b.service));
}
