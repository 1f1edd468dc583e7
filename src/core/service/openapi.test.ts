import { expect, test } from "bun:test";
import { z } from "zod";
import { openApiDocument } from "./openapi.ts";

test("routes become OpenAPI 3.1: paths, parameters, bodies, answers, and problems for the rest", () => {
  const Team = z.object({ id: z.string(), name: z.string().min(1) });
  const document = openApiDocument({ title: "identity", version: "1.2.0", description: "teams" }, [
    {
      method: "get",
      path: "/teams/:id{[0-9]+}",
      spec: { returns: Team, summary: "one team" },
      handler: () => undefined,
    },
    {
      method: "get",
      path: "/teams",
      spec: { query: z.object({ limit: z.coerce.number().default(20) }) },
      handler: () => undefined,
    },
    {
      method: "post",
      path: "/teams",
      spec: { body: Team.omit({ id: true }), returns: Team, status: 201 },
      handler: () => undefined,
    },
  ]) as { openapi: string; paths: Record<string, Record<string, Record<string, unknown>>> };
  expect(document.openapi).toBe("3.1.0");
  expect(Object.keys(document.paths)).toEqual(["/teams/{id}", "/teams"]);
  expect(document.paths["/teams/{id}"]?.get).toMatchObject({
    operationId: "get_teams_id",
    summary: "one team",
    parameters: [{ name: "id", in: "path", required: true, schema: { type: "string" } }],
    responses: {
      "200": { content: { "application/json": { schema: { type: "object", required: ["id", "name"] } } } },
      default: { content: { "application/problem+json": { schema: { $ref: "#/components/schemas/Problem" } } } },
    },
  });
  expect(document.paths["/teams"]?.get).toMatchObject({
    parameters: [{ name: "limit", in: "query", required: false }],
    responses: { "204": { description: "done" } },
  });
  expect(document.paths["/teams"]?.post).toMatchObject({
    requestBody: { required: true, content: { "application/json": { schema: { required: ["name"] } } } },
    responses: { "201": {} },
  });
});
