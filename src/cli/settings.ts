// settings get | set | history: a service's configuration values in this realm.
import { z } from "zod";
import { type AtlasClient, AtlasProblem } from "../core/api/atlas-client.ts";
import { Fault } from "../core/lib/errors.ts";
import { plainly } from "../core/lib/plainly.ts";
import { settingsHistorySchema } from "../core/model/answers.ts";
import { type Settings, settingsSchema, settingsValuesSchema } from "../core/model/settings.ts";
import { type Assignment, type JsonMap, parseAssignments, readings, readMapFile, textOf } from "./assignments.ts";
import { type Command, defineCommand, usageError } from "./command.ts";
import { formatSource } from "./config.ts";
import { connectAtlas } from "./connection.ts";
import { EXIT } from "./exit-codes.ts";
import { checkNames, readOptions } from "./operator.ts";
import { option, path, text, texts } from "./options.ts";
import { answer, print } from "./output.ts";
import { formatTable } from "./table.ts";

const settingsPath = (service: string): string => `/v1/settings/${encodeURIComponent(service)}`;
const read = (client: AtlasClient, service: string): Promise<Settings> =>
  client.request(settingsPath(service), { schema: settingsSchema });

export const getSettings: Command = defineCommand({
  name: "settings get",
  summary: "a service's settings in this realm, or one of them",
  arguments: [
    { name: "SERVICE", describe: "the service" },
    { name: "KEY", describe: "only the value of this one", optional: true },
  ],
  examples: ["smartstack settings get identity", "smartstack settings get identity REDIS_SERVICE"],
  options: readOptions,
  async run({ values, sources, args: [service = "", key] }) {
    checkNames(getSettings, service);
    const settings = await read(connectAtlas({ values, sources }), service);
    if (key === undefined) {
      answer(values.json, settings, () => formatSettings(settings));
      return EXIT.done;
    }
    if (!Object.hasOwn(settings.values, key)) {
      const known = Object.keys(settings.values);
      throw new Fault({
        code: "not_found",
        message: `${key} is not set for ${service}`,
        hint: known.length === 0 ? "Nothing is." : `Set are ${known.join(", ")}.`,
      });
    }
    print(values.json ? JSON.stringify(settings.values[key]) : textOf(settings.values[key]));
    return EXIT.done;
  },
});

export const setSettings: Command = defineCommand({
  name: "settings set",
  summary: "change settings of a service, or replace all of them",
  arguments: [
    { name: "SERVICE", describe: "the service" },
    { name: "KEY=VALUE", describe: "VALUE is JSON when it is, text otherwise", optional: true, variadic: true },
  ],
  examples: [
    "smartstack settings set identity REDIS_SERVICE=redis-cluster-1 REDIS_DB=2",
    "smartstack settings set identity --unset REDIS_DB --reason 'default is fine'",
    "smartstack settings set identity --file settings.yaml",
  ],
  options: {
    file: option(path(), "all settings, YAML or JSON; replaces those there are"),
    unset: option(texts("KEY"), "remove a setting; may be repeated"),
    reason: option(text("TEXT"), "why, for the audit trail"),
    ...readOptions,
  },
  async run({ values, sources, args: [service = "", ...pairs] }) {
    checkNames(setSettings, service);
    const assignments = parseAssignments(pairs);
    const unset = values.unset ?? [];
    if (values.file !== undefined && assignments.length + unset.length > 0)
      throw usageError(setSettings, "takes --file or single keys, not both");
    const replacement = values.file === undefined ? undefined : readMapFile(values.file, formatSource(sources.file));
    if (replacement === undefined && assignments.length + unset.length === 0)
      throw usageError(setSettings, "missing KEY=VALUE, --unset or --file");
    const edit = (current: JsonMap): JsonMap => replacement ?? edited(current, assignments, unset);
    checkSettings(edit({}));
    const written = await replace(connectAtlas({ values, sources }), service, edit, values.reason);
    answer(values.json, written, () =>
      written.changed ? `${service} has settings version ${written.version}` : `${service} was set so already`,
    );
    return EXIT.done;
  },
});

export const settingsHistory: Command = defineCommand({
  name: "settings history",
  summary: "every version of a service's settings, newest first",
  arguments: [{ name: "SERVICE", describe: "the service" }],
  options: readOptions,
  async run({ values, sources, args: [service = ""] }) {
    checkNames(settingsHistory, service);
    const versions = await connectAtlas({ values, sources }).request(`${settingsPath(service)}/history`, {
      schema: settingsHistorySchema,
    });
    answer(values.json, versions, () =>
      versions.length === 0
        ? "nothing was ever set"
        : formatTable(
            ["VERSION", "AT", "WHO", "VALUES"],
            versions.map(({ version, at, who, values }) => [String(version), at, who, JSON.stringify(values)]),
          ),
    );
    return EXIT.done;
  },
});

/** Somebody else may set something at the same moment; after so many lost races the world is busier than this command. */
const ATTEMPTS = 5;

const writtenSchema = z.object({
  generation: z.int(),
  revision: z.int(),
  version: z.int(),
  changed: z.boolean().default(true),
});

/** Read, edit, write if nobody wrote in between. @throws AtlasProblem `stale` after five lost races */
async function replace(
  client: AtlasClient,
  service: string,
  edit: (current: JsonMap) => JsonMap,
  reason: string | undefined,
): Promise<z.output<typeof writtenSchema>> {
  const query = reason === undefined ? "" : `?${new URLSearchParams({ reason }).toString()}`;
  for (let attempt = 1; ; attempt += 1) {
    const { version, values } = await read(client, service);
    try {
      return await client.request(settingsPath(service) + query, {
        method: "PUT",
        headers: { "if-match": `"${version}"` },
        body: { values: edit(values) },
        schema: writtenSchema,
      });
    } catch (error) {
      const overtaken = error instanceof AtlasProblem && error.code === "stale";
      if (!overtaken || attempt === ATTEMPTS) throw error;
    }
  }
}

function edited(current: JsonMap, assignments: readonly Assignment[], unset: readonly string[]): JsonMap {
  const kept = Object.entries(current).filter(([key]) => !unset.includes(key));
  // names of settings are flat: a dot is part of nothing
  return Object.fromEntries([...kept, ...assignments.map(({ key, text }) => [key, readings(text)[0]] as const)]);
}

function checkSettings(values: JsonMap): void {
  const { error } = settingsValuesSchema.safeParse(values, { error: plainly });
  if (error === undefined) return;
  const lines = error.issues.map((issue) => {
    const message = issue.code === "invalid_key" ? issue.issues[0]?.message : undefined;
    return `  ${issue.path.join(".")}: ${message ?? issue.message}`;
  });
  throw new Fault({ code: "usage", message: `those are no settings\n${lines.join("\n")}` });
}

function formatSettings({ service, version, values }: Settings): string {
  const rows = Object.entries(values).map(([key, value]) => [key, textOf(value)]);
  return rows.length === 0
    ? `${service} has no settings`
    : `${formatTable(["KEY", "VALUE"], rows)}\nversion ${version}`;
}
