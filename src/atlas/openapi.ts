// The OpenAPI document, from the schemas that validate. zod writes JSON Schema 2020-12 itself, which is what OpenAPI 3.1
// takes; @hono/zod-openapi overflows the stack on a schema that contains itself, as any JSON value of a setting does.
import { z } from "zod";
import { PROBLEM_STATUS, type ProblemCode } from "../core/lib/problem.ts";
import { VERSION } from "../core/lib/version.ts";
import { ackSchema, agentSchema } from "../core/model/agent.ts";
import { instanceSchema, patchInstanceSchema, putInstanceSchema } from "../core/model/instance.ts";
import { definitionSchema, readDefinitionSchema } from "../core/model/service.ts";
import { NEEDS } from "./access.ts";
import type { Route } from "./router.ts";
import { problemSchema, writtenSchema } from "./schemas.ts";

/** Schemas that have a name in the document; all others stand where they are used. */
const NAMES = {
  input: new Map<z.ZodType, string>([
    [definitionSchema, "PutDefinition"],
    [putInstanceSchema, "PutInstance"],
    [patchInstanceSchema, "PatchInstance"],
    [ackSchema, "Ack"],
  ]),
  output: new Map<z.ZodType, string>([
    [definitionSchema, "Definition"],
    [instanceSchema, "Instance"],
    [agentSchema, "Agent"],
    [writtenSchema, "Written"],
    [problemSchema, "Problem"],
  ]),
} as const;

/** What every route that needs a token can answer. */
const ACCESS_PROBLEMS: readonly ProblemCode[] = ["unauthorized", "forbidden"];

type Direction = keyof typeof NAMES;
type Json = Record<string, unknown>;

export function openApiDocument(routes: readonly Route[]): Json {
  const components: Json = {};
  const paths: Record<string, Json> = {};
  for (const one of routes) {
    paths[one.path] = { ...paths[one.path], [one.method.toLowerCase()]: operation(one, components) };
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "smartstack Atlas",
      version: VERSION,
      description: "The registry of services and instances. docs/api.md has examples.",
      license: { name: "MIT", identifier: "MIT" },
    },
    paths,
    components: {
      schemas: components,
      securitySchemes: {
        token: { type: "http", scheme: "bearer", description: "Where this Atlas asks for tokens; docs/security.md" },
      },
    },
  };
}

function operation(one: Route, components: Json): Json {
  const content = (schema: z.ZodType, direction: Direction, type = "application/json"): Json => ({
    content: { [type]: { schema: schemaOf(schema, direction, components) } },
  });
  const answers = Object.entries(one.answers).map(([status, { means, schema, type }]) => [
    status,
    { description: means, ...(schema === undefined ? {} : content(schema, "output", type)) },
  ]);
  const problems = new Map<number, string[]>();
  const open = one.needs === "nothing";
  for (const code of [...one.problems, ...(open ? [] : ACCESS_PROBLEMS)]) {
    const status = PROBLEM_STATUS[code];
    problems.set(status, [...(problems.get(status) ?? []), code]);
  }
  const refusals = [...problems].map(([status, codes]) => [
    String(status),
    { description: codes.join(", "), ...content(problemSchema, "output", "application/problem+json") },
  ]);
  return {
    summary: one.summary,
    operationId: operationId(one),
    // an empty list of roles would say that any token will do; OpenAPI 3.1 lets a bearer scheme name them
    security: open ? [] : [{ token: one.needs === "peer" ? ["peer"] : NEEDS[one.needs] }],
    parameters: [...parameters(one.params, "path", components), ...parameters(one.query, "query", components)],
    ...(one.body === undefined ? {} : { requestBody: { required: true, ...content(one.body, "input") } }),
    ...(one.upload === undefined ? {} : { requestBody: uploadOf(one.upload) }),
    responses: Object.fromEntries([...answers, ...refusals]),
  };
}

function uploadOf({ means, type }: NonNullable<Route["upload"]>): Json {
  return { required: true, description: means, content: { [type]: { schema: { type: "string" } } } };
}

/** `GET /v1/services/{service}` → `getServicesService`. */
function operationId({ method, path }: Route): string {
  const words = path.replace(/^\/v1/, "").match(/[a-z]+/g) ?? [];
  return method.toLowerCase() + words.map((word) => word.slice(0, 1).toUpperCase() + word.slice(1)).join("");
}

function parameters(schema: z.ZodType, place: "path" | "query", components: Json): readonly Json[] {
  const { properties = {}, required = [] } = schemaOf(schema, "input", components) as {
    properties?: Readonly<Record<string, unknown>>;
    required?: readonly string[];
  };
  return Object.entries(properties).map(([name, property]) => ({
    name,
    in: place,
    required: required.includes(name),
    schema: property,
  }));
}

/** One schema as JSON Schema; the named ones that it uses go to `components`. */
function schemaOf(schema: z.ZodType, direction: Direction, components: Json): Json {
  const metadata = z.registry<{ id: string }>();
  for (const [named, id] of NAMES[direction]) metadata.add(named, { id });
  const {
    $schema: _,
    $defs,
    ...own
  } = z.toJSONSchema(schema, {
    io: direction,
    metadata,
    // what only code can check (an IP address, a sum) is said in words elsewhere
    unrepresentable: "any",
    override: ({ zodSchema, jsonSchema }) => {
      // the reader's twin of the definition has its shape, but zod cannot see through the transform
      if ((zodSchema as z.core.$ZodType) !== readDefinitionSchema) return;
      for (const key of Object.keys(jsonSchema)) delete jsonSchema[key];
      jsonSchema.$ref = "#/$defs/Definition";
      schemaOf(definitionSchema, "output", components);
    },
  }) as Json & { $defs?: Json };
  const name = NAMES[direction].get(schema);
  if (name !== undefined) components[name] = relocate(own);
  for (const [id, definition] of Object.entries($defs ?? {})) components[componentName(id)] = relocate(definition);
  return name === undefined ? (relocate(own) as Json) : { $ref: `#/components/schemas/${name}` };
}

/** zod's own name for a part that contains itself; the only such schema here is "any JSON value". */
function componentName(id: string): string {
  return id.startsWith("__") ? "Json" : id;
}

function relocate(schema: unknown): unknown {
  const text = JSON.stringify(schema, (key, value: unknown) =>
    key === "id" && typeof value === "string" ? undefined : value,
  );
  return JSON.parse(
    text.replaceAll(/"#\/\$defs\/([^"]+)"/g, (_, id: string) => `"#/components/schemas/${componentName(id)}"`),
  );
}
