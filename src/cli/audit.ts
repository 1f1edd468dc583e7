import { type AuditEntry, auditSchema } from "../core/model/answers.ts";
import { fieldsOf, isMap } from "./assignments.ts";
import { type Command, defineCommand } from "./command.ts";
import { connectAtlas } from "./connection.ts";
import { EXIT } from "./exit-codes.ts";
import { readOptions } from "./operator.ts";
import { integer, option } from "./options.ts";
import { answer } from "./output.ts";
import { formatTable } from "./table.ts";

export const audit: Command = defineCommand({
  name: "audit",
  summary: "who changed what, when and why; newest first",
  examples: ["smartstack audit --limit 20", "smartstack audit --json | jq '.[] | select(.target == \"identity\")'"],
  options: { limit: option(integer("N", 1, 1_000), "so many entries", 50), ...readOptions },
  async run({ values, sources }) {
    const client = connectAtlas({ values, sources });
    const entries = await client.request(`/v1/audit?limit=${values.limit}`, { schema: auditSchema });
    answer(values.json, entries, () => formatAudit(entries));
    return EXIT.done;
  },
});

export function formatAudit(entries: readonly AuditEntry[]): string {
  if (entries.length === 0) return "nothing was changed yet";
  return formatTable(
    ["AT", "WHO", "FROM", "WHAT", "TARGET", "REASON", "CHANGE"],
    entries.map(({ at, who, from, kind, target, reason, before, after }) => [
      at.replace("T", " ").replace(/\.\d+Z$/, "Z"),
      who,
      from,
      kind,
      target,
      reason ?? "",
      formatChange(before, after),
    ]),
  );
}

/** `owner core → money, retries 3 → 5`: the fields that differ, one level into objects. Nothing when a side is missing. */
export function formatChange(before: unknown, after: unknown): string {
  const [old, next] = [before, after].map((side) => new Map(isMap(side) ? fieldsOf(side) : []));
  if (old === undefined || next === undefined || old.size === 0 || next.size === 0) return "";
  const keys = [...new Set([...old.keys(), ...next.keys()])].filter((key) => old.get(key) !== next.get(key));
  const shown = (value: string | undefined): string => (value === "" ? '""' : (value ?? "–"));
  return keys.map((key) => `${key} ${shown(old.get(key))} → ${shown(next.get(key))}`).join(", ");
}
