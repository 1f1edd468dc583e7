import { z } from "zod";
import { type AtlasClient, AtlasProblem } from "../core/api/atlas-client.ts";
import { Fault } from "../core/lib/errors.ts";
import { plainly } from "../core/lib/plainly.ts";
import { definitionSchema } from "../core/model/service.ts";
import { type Assignment, type JsonMap, parseAssignments, readings, readMapFile, withValue } from "./assignments.ts";
import { type Command, defineCommand, usageError } from "./command.ts";
import { formatSource, suggest } from "./config.ts";
import { connectAtlas } from "./connection.ts";
import { EXIT } from "./exit-codes.ts";
import {
  checkNames,
  explainUnapplied,
  formatApplied,
  serviceDetailSchema,
  servicePath,
  write,
  writeOptions,
} from "./operator.ts";
import { option, path, texts } from "./options.ts";
import { answer } from "./output.ts";

export const define: Command = defineCommand({
  name: "define",
  summary: "define a service, or change its definition",
  arguments: [
    { name: "SERVICE", describe: "the service" },
    { name: "KEY=VALUE", describe: "what to change, for example healthcheck.path=/up", optional: true, variadic: true },
  ],
  examples: [
    "smartstack define identity owner=core healthcheck.path=/up",
    "smartstack define identity timeouts.requestMs=60000 --reason 'long exports' --wait",
    'smartstack define identity \'split={"1.0": 99, "1.1": 1}\'',
    "smartstack define identity --file identity.yaml",
  ],
  options: {
    file: option(path(), "the whole definition, YAML or JSON; replaces the one there is"),
    unset: option(texts("KEY"), "back to the default; may be repeated"),
    ...writeOptions,
  },
  async run({ values, sources, args: [service = "", ...pairs] }) {
    checkNames(define, service);
    const assignments = parseAssignments(pairs);
    const unset = values.unset ?? [];
    if (values.file !== undefined && assignments.length + unset.length > 0)
      throw usageError(define, "takes --file or single keys, not both");
    const replacement = values.file === undefined ? undefined : readMapFile(values.file, formatSource(sources.file));
    if (replacement !== undefined) refuse(issuesOf(replacement));
    const client = connectAtlas({ values, sources });
    const body = replacement ?? edit(await readDefinition(client, service), assignments, unset);
    const request = { method: "PUT", body } as const;
    const written = await write(client, servicePath(service), request, values).catch((error: unknown) => {
      throw explainUnapplied(error, `${service} is defined`, values.timeout);
    });
    const what = written.changed === false ? "was so already" : "defined";
    answer(values.json, { service, ...written }, () => `${service} ${what}${formatApplied(written)}`);
    return EXIT.done;
  },
});

/** The definition as Atlas has it, with keys that this program does not know; empty when the service is new. */
async function readDefinition(client: AtlasClient, service: string): Promise<JsonMap> {
  try {
    return (await client.request(servicePath(service), { schema: serviceDetailSchema })).definition;
  } catch (error) {
    if (error instanceof AtlasProblem && error.code === "not_found") return {};
    throw error;
  }
}

/**
 * Pure: the definition after the edits, each value read in the type its key wants.
 * @throws Fault `usage` with every edit that makes no definition
 */
export function edit(current: JsonMap, assignments: readonly Assignment[], unset: readonly string[]): JsonMap {
  let next = current;
  for (const key of unset) next = withValue(next, key.split("."), undefined);
  for (const { path, text } of assignments) {
    const candidates = readings(text).map((value) => withValue(next, path, value));
    const good = candidates.find((candidate) => issuesOf(candidate).every(({ key }) => !isWithin(key, path)));
    next = good ?? candidates[0] ?? next;
  }
  // what a newer Atlas knows and nobody edits is none of our business
  const edited = [...unset, ...assignments.map(({ key }) => key)];
  refuse(issuesOf(next).filter((issue) => !issue.unknown || edited.some((key) => isWithin(key, issue.key.split(".")))));
  return next;
}

type Issue = { readonly key: string; readonly message: string; readonly unknown: boolean };

const NESTED: Readonly<Record<string, readonly string[]>> = nestedKeys();

function issuesOf(definition: JsonMap): readonly Issue[] {
  const { error } = definitionSchema.safeParse(definition, { error: plainly });
  return (error?.issues ?? []).flatMap((issue): Issue[] => {
    const path = issue.path.join(".");
    if (issue.code !== "unrecognized_keys") return [{ key: path, message: issue.message, unknown: false }];
    return issue.keys.map((name) => ({
      key: path === "" ? name : `${path}.${name}`,
      message: `is no key of a definition${suggest(name, NESTED[path] ?? [])}`,
      unknown: true,
    }));
  });
}

function isWithin(key: string, path: readonly string[]): boolean {
  const outer = path.join(".");
  return key === outer || key.startsWith(`${outer}.`);
}

/** The keys at each level: `""` for the definition itself, `healthcheck`, `timeouts`. */
function nestedKeys(): Record<string, readonly string[]> {
  const shape: Readonly<Record<string, z.ZodType>> = definitionSchema.shape;
  const inner = Object.entries(shape).flatMap(([key, schema]) => {
    const object = schema instanceof z.ZodPrefault ? schema.unwrap() : undefined;
    return object instanceof z.ZodObject ? [[key, Object.keys(object.shape)] as const] : [];
  });
  return { "": Object.keys(shape), ...Object.fromEntries(inner) };
}

function refuse(issues: readonly Issue[]): void {
  if (issues.length === 0) return;
  const lines = issues.map(({ key, message }) => `  ${key === "" ? "" : `${key}: `}${message}`);
  throw new Fault({ code: "usage", message: `that is no definition of a service\n${lines.join("\n")}` });
}
