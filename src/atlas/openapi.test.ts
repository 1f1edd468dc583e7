import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type RunningAtlas, startAtlas } from "./atlas.ts";

type Operation = {
  readonly operationId: string;
  readonly summary: string;
  readonly parameters: readonly { readonly name: string; readonly in: string; readonly required: boolean }[];
  readonly requestBody?: { readonly content: Readonly<Record<string, unknown>> };
  readonly responses: Readonly<Record<string, { readonly description: string }>>;
};
type Document = {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, Readonly<Record<string, unknown>>>> };
};

let atlas: RunningAtlas;
let directory: string;
let document: Document;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-atlas-"));
  atlas = await startAtlas({
    listen: { host: "127.0.0.1", port: 0 },
    realm: "local",
    store: { kind: "embedded", dataDir: directory },
  });
  document = (await (await fetch(new URL("/openapi.json", atlas.url))).json()) as Document;
});
afterAll(async () => {
  await atlas.stop();
  await rm(directory, { recursive: true, force: true });
});

const operations = (): [string, string, Operation][] =>
  Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]): [string, string, Operation] => [method, path, operation]),
  );

describe("the OpenAPI document", () => {
  test("is 3.1 and has every operation of the contract", () => {
    expect(document.openapi).toBe("3.1.0");
    expect(
      operations()
        .map(([method, path]) => `${method.toUpperCase()} ${path}`)
        .sort(),
    ).toEqual([
      "DELETE /v1/agents/{host}",
      "DELETE /v1/ports/{service}",
      "DELETE /v1/services/{service}",
      "DELETE /v1/services/{service}/instances/{instance}",
      "DELETE /v1/settings/{service}",
      "GET /healthcheck",
      "GET /livez",
      "GET /metrics",
      "GET /openapi.json",
      "GET /readyz",
      "GET /v1/agents",
      "GET /v1/audit",
      "GET /v1/changes/{revision}",
      "GET /v1/export",
      "GET /v1/info",
      "GET /v1/peer/agents/{host}",
      "GET /v1/peer/feed",
      "GET /v1/ports",
      "GET /v1/services",
      "GET /v1/services/{service}",
      "GET /v1/services/{service}/instances/{instance}",
      "GET /v1/settings/{service}",
      "GET /v1/settings/{service}/history",
      "GET /v1/watch",
      "PATCH /v1/services/{service}/instances/{instance}",
      "POST /v1/agents/{host}/acks",
      "POST /v1/import",
      "POST /v1/ports",
      "PUT /v1/services/{service}",
      "PUT /v1/services/{service}/instances/{instance}",
      "PUT /v1/settings/{service}",
    ]);
  });

  test("every reference leads somewhere", () => {
    const references = [...JSON.stringify(document).matchAll(/"\$ref":"([^"]+)"/g)].map((match) => match[1] ?? "");
    expect(references.length).toBeGreaterThan(20);
    for (const reference of references) {
      expect(reference).toStartWith("#/components/schemas/");
      expect(Object.keys(document.components.schemas)).toContain(reference.slice("#/components/schemas/".length));
    }
  });

  test("every operation has an id of its own, its path's parameters and a description of each answer", () => {
    const ids = operations().map(([, , { operationId }]) => operationId);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids).toContain("putServicesServiceInstancesInstance");
    for (const [, path, { parameters, responses }] of operations()) {
      const inPath = parameters.filter((parameter) => parameter.in === "path");
      expect(inPath.map(({ name }) => name)).toEqual([...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1] ?? ""));
      expect(inPath.every(({ required }) => required)).toBe(true);
      for (const { description } of Object.values(responses)) expect(description).not.toBe("");
    }
  });

  test("writers' bodies forbid unknown fields, and defaults are what the schemas fill in", () => {
    const { PutDefinition, PutInstance, Definition } = document.components.schemas;
    expect(PutDefinition).toMatchObject({
      additionalProperties: false,
      properties: { balance: { default: "random" }, healthcheck: { properties: { intervalMs: { default: 2000 } } } },
    });
    expect(PutDefinition).not.toHaveProperty("required");
    expect(PutInstance).toMatchObject({ additionalProperties: false, required: ["port"] });
    expect(Definition?.required).toContain("healthcheck");
  });
});
