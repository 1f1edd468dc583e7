// Settings, ports and the audit trail over HTTP.
import { z } from "zod";
import { ProblemFault } from "../core/lib/http.ts";
import { auditSchema, portSchema, settingsHistorySchema } from "../core/model/answers.ts";
import { settingsSchema } from "../core/model/settings.ts";
import type { Outcome } from "./operations.ts";
import { actorOf, type Parts, written } from "./parts.ts";
import { type Call, route, type Route } from "./router.ts";
import {
  limitQuery,
  noParams,
  noQuery,
  portWrittenSchema,
  putSettingsSchema,
  reservePortSchema,
  serviceParams,
  settingsWrittenSchema,
  writeQuery,
  writtenSchema,
} from "./schemas.ts";
import { etagOf } from "./settings-operations.ts";

type SettingsCall = Call<z.output<typeof serviceParams>, z.output<typeof writeQuery>, unknown>;

export function metadataRoutes(parts: Parts): readonly Route[] {
  const { registry, meta, settings, ports } = parts;
  return [
    route({
      method: "GET",
      path: "/v1/settings/{service}",
      needs: "read",
      summary: "A service's settings in this realm; version 0 and no values when nobody has set any",
      params: serviceParams,
      query: noQuery,
      answers: { 200: { means: 'ETag is "VERSION"', schema: settingsSchema } },
      problems: ["invalid", "unavailable"],
      handle: async ({ params: { service } }) => {
        const current = await registry.settings(service);
        return Response.json(current, { headers: { etag: etagOf(current.version) } });
      },
    }),
    route({
      method: "PUT",
      path: "/v1/settings/{service}",
      needs: "deploy",
      summary: "Replace all settings of a service; with If-Match only when they are at that version",
      params: serviceParams,
      query: writeQuery,
      body: putSettingsSchema,
      answers: {
        200: { means: "changed, or so already", schema: settingsWrittenSchema },
        201: { means: "new", schema: settingsWrittenSchema },
      },
      problems: ["invalid", "stale", "too_large", "wrong_type", "unavailable"],
      handle: (call) =>
        settingsWritten(parts, call, (expected) =>
          settings.put(call.params.service, call.body.values, expected, actorOf(call)),
        ),
    }),
    route({
      method: "DELETE",
      path: "/v1/settings/{service}",
      needs: "deploy",
      summary: "Back to nothing set; the history stays",
      params: serviceParams,
      query: writeQuery,
      answers: { 200: { means: "empty now, or so already", schema: settingsWrittenSchema } },
      problems: ["invalid", "stale", "unavailable"],
      handle: (call) =>
        settingsWritten(parts, call, (expected) => settings.delete(call.params.service, expected, actorOf(call))),
    }),
    route({
      method: "GET",
      path: "/v1/settings/{service}/history",
      needs: "read",
      summary: "Earlier versions of a service's settings, newest first",
      params: serviceParams,
      query: limitQuery,
      answers: { 200: { means: "newest first", schema: settingsHistorySchema } },
      problems: ["invalid", "unavailable"],
      handle: async ({ params: { service }, query: { limit } }) =>
        Response.json(await meta.settingsHistory(service, limit)),
    }),
    route({
      method: "POST",
      path: "/v1/ports",
      needs: "deploy",
      summary: "Reserve a port for a service, or learn the one it has",
      params: noParams,
      query: writeQuery,
      body: reservePortSchema,
      answers: {
        200: { means: "it has one", schema: portWrittenSchema },
        201: { means: "reserved now", schema: portWrittenSchema },
      },
      problems: ["invalid", "conflict", "too_large", "wrong_type", "unavailable"],
      handle: (call) =>
        written(
          parts,
          call,
          call.body,
          () => ports.reserve(call.body.service, actorOf(call)),
          ({ port }) => ({ service: call.body.service, port }),
        ),
    }),
    route({
      method: "GET",
      path: "/v1/ports",
      needs: "read",
      summary: "Every reserved port",
      params: noParams,
      query: noQuery,
      answers: { 200: { means: "by port", schema: z.array(portSchema) } },
      problems: ["unavailable"],
      handle: async () => Response.json(await meta.ports()),
    }),
    route({
      method: "DELETE",
      path: "/v1/ports/{service}",
      needs: "deploy",
      summary: "Release a service's port",
      params: serviceParams,
      query: writeQuery,
      answers: { 200: { means: "released, or free already", schema: writtenSchema } },
      problems: ["invalid", "unavailable"],
      handle: (call) => written(parts, call, call.params, () => ports.release(call.params.service, actorOf(call))),
    }),
    route({
      method: "GET",
      path: "/v1/audit",
      needs: "read",
      summary: "Who wrote what",
      params: noParams,
      query: limitQuery,
      answers: { 200: { means: "newest first", schema: auditSchema } },
      problems: ["invalid", "unavailable"],
      handle: async ({ query: { limit } }) => Response.json(await meta.audit(limit)),
    }),
  ];
}

async function settingsWritten(
  parts: Parts,
  call: SettingsCall,
  write: (expected: number | undefined) => Promise<Outcome & { readonly version: number }>,
): Promise<Response> {
  let current = 0;
  const response = await written(
    parts,
    call,
    call.params,
    () => write(ifMatch(call.request)),
    ({ version }) => {
      current = version;
      return { version };
    },
  );
  response.headers.set("etag", etagOf(current));
  return response;
}

/** The version in If-Match; undefined when any will do. @throws ProblemFault `invalid` when it is no version of ours */
function ifMatch(request: Request): number | undefined {
  const text = request.headers.get("if-match");
  if (text === null || text === "*") return undefined;
  const match = /^"?(\d{1,9})"?$/.exec(text);
  if (match === null) throw new ProblemFault("invalid", `If-Match must be an ETag of this resource, such as "3"`);
  return Number(match[1]);
}
