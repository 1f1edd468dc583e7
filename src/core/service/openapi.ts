// The OpenAPI 3.1 document of a service, made from the same schemas that check its requests.
import { z } from "zod";
import type { Route, RouteSpec } from "./route.ts";

type Json = Readonly<Record<string, unknown>>;

const PROBLEM: Json = {
  type: "object",
  required: ["type", "title", "status", "detail", "code", "requestId"],
  properties: {
    type: { type: "string" },
    title: { type: "string" },
    status: { type: "integer" },
    detail: { type: "string" },
    code: { type: "string" },
    requestId: { type: "string" },
    errors: {
      type: "array",
      items: {
        type: "object",
        required: ["path", "message"],
        properties: { path: { type: "string" }, message: { type: "string" } },
      },
    },
  },
};

export function openApiDocument(
  info: { title: string; version: string; description: string },
  routes: readonly Route[],
): Json {
  const paths: Record<string, Record<string, Json>> = {};
  for (const route of routes) {
    const path = route.path.replaceAll(/:([A-Za-z0-9_]+)(?:\{[^}]*\})?\??/g, "{$1}");
    (paths[path] ??= {})[route.method] = operation(route, path);
  }
  return { openapi: "3.1.0", info, paths, components: { schemas: { Problem: PROBLEM } } };
}

function operation({ method, path: pattern, spec }: Route, path: string): Json {
  const status = String(spec.status ?? (spec.returns === undefined ? 204 : 200));
  const parameters = [
    ...parametersOf("path", pathSchema(pattern, spec)),
    ...parametersOf("query", jsonSchema(spec.query, "input")),
  ];
  return {
    operationId: `${method}${path.replaceAll(/[^A-Za-z0-9]+/g, "_")}`.replace(/_$/, ""),
    ...(spec.summary === undefined ? {} : { summary: spec.summary }),
    ...(spec.description === undefined ? {} : { description: spec.description }),
    ...(spec.tags === undefined ? {} : { tags: spec.tags }),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(spec.body === undefined
      ? {}
      : { requestBody: { required: true, content: json(jsonSchema(spec.body, "input")) } }),
    responses: {
      [status]:
        spec.returns === undefined
          ? { description: "done" }
          : { description: spec.returns.description ?? "done", content: json(jsonSchema(spec.returns, "output")) },
      default: {
        description: "a problem",
        content: { "application/problem+json": { schema: { $ref: "#/components/schemas/Problem" } } },
      },
    },
  };
}

function json(schema: Json): Json {
  return { "application/json": { schema } };
}

/** The declared schema of the path's parameters, or one that says that each is text. */
function pathSchema(path: string, spec: RouteSpec): Json {
  if (spec.params !== undefined) return jsonSchema(spec.params, "input");
  const names = [...path.matchAll(/:([A-Za-z0-9_]+)/g)].map(([, name]) => name ?? "");
  return { properties: Object.fromEntries(names.map((name) => [name, { type: "string" }])), required: names };
}

function parametersOf(place: "path" | "query", schema: Json): readonly Json[] {
  const required = Array.isArray(schema.required) ? (schema.required as readonly unknown[]) : [];
  return Object.entries((schema.properties ?? {}) as Record<string, Json>).map(([name, property]) => ({
    name,
    in: place,
    required: place === "path" || required.includes(name),
    schema: property,
  }));
}

/** JSON Schema 2020-12, which OpenAPI 3.1 speaks; what zod cannot say in it (a transform, a date) is "anything". */
function jsonSchema(schema: z.ZodType | undefined, io: "input" | "output"): Json {
  if (schema === undefined) return {};
  const {
    $schema: _dialect,
    "~standard": _standard,
    ...rest
  } = z.toJSONSchema(schema, { io, unrepresentable: "any" }) as Json;
  return rest;
}
