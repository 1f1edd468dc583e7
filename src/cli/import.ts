// import: a realm from a file that export wrote.
import { stat } from "node:fs/promises";
import type { z } from "zod";
import { AtlasProblem } from "../core/api/atlas-client.ts";
import { readAnswer } from "../core/api/exchange.ts";
import { describeError, Fault } from "../core/lib/errors.ts";
import { importedSchema } from "../core/model/answers.ts";
import { type Command, defineCommand, usageError } from "./command.ts";
import { connectAtlas } from "./connection.ts";
import { EXIT } from "./exit-codes.ts";
import { explainUnapplied, formatApplied, writeOptions, writtenSchema } from "./operator.ts";
import { flagOnly, option, toggle } from "./options.ts";
import { answer } from "./output.ts";
import { formatTable, plural } from "./table.ts";

/** Longest time that a realm takes to be written, in ms. */
const LONGEST_MS = 600_000;

const answerSchema = writtenSchema.extend(importedSchema.shape);
type Answer = z.output<typeof answerSchema> & { readonly tookMs: number };

export const importRealm: Command = defineCommand({
  name: "import",
  summary: "make the whole realm what a file of export says",
  arguments: [{ name: "FILE", describe: "what export wrote; - is standard input" }],
  examples: [
    "smartstack import /var/backups/smartstack/prod.jsonl --dry-run",
    "smartstack import prod.jsonl --replace --reason 'disk lost' --wait",
    "gunzip < prod.jsonl.gz | smartstack import -",
  ],
  options: {
    // only as flags: left in a profile or a file, they would say yes for ever
    replace: flagOnly(option(toggle, "replace a registry that is not empty", false)),
    forceRealm: flagOnly(option(toggle, "take the backup of another realm, its instances too", false)),
    dryRun: option(toggle, "check everything and say what would change; write nothing", false),
    ...writeOptions,
  },
  async run({ values, sources, args: [path = ""] }) {
    const { replace, dryRun, forceRealm, reason, wait, timeout } = values;
    const body = await open(path);
    const client = connectAtlas({ values, sources });
    const query = new URLSearchParams({
      ...(replace ? { replace: "true" } : {}),
      ...(dryRun ? { dryRun: "true" } : {}),
      ...(forceRealm ? { forceRealm: "true" } : {}),
      ...(reason === undefined ? {} : { reason }),
      ...(wait ? { wait: "applied", timeout: `${timeout}ms` } : {}),
    });
    const began = performance.now();
    const response = await client.fetch(`/v1/import${query.size === 0 ? "" : `?${query.toString()}`}`, {
      method: "POST",
      headers: { "content-type": "application/x-ndjson" },
      body,
      signal: AbortSignal.timeout(LONGEST_MS + (wait ? timeout : 0)),
    });
    const found = await readAnswer(
      response,
      answerSchema,
      "POST /v1/import",
      (...refusal) => new AtlasProblem(...refusal),
    ).catch((error: unknown) => {
      throw explainUnapplied(explainRefusal(error), "the realm is imported", timeout);
    });
    const done = { ...found, tookMs: Math.round(performance.now() - began) };
    answer(values.json, done, () => format(done));
    return EXIT.done;
  },
});

/** @throws Fault `usage` when there is nothing to read */
async function open(path: string): Promise<Blob> {
  if (path === "-") return new Response(Bun.stdin.stream()).blob();
  const found = await stat(path).catch((error: unknown) => {
    throw usageError(importRealm, `${path} cannot be read: ${describeError(error)}`);
  });
  if (!found.isFile()) throw usageError(importRealm, `${path} is no regular file`);
  return Bun.file(path);
}

const HINTS: Readonly<Record<string, string>> = {
  replace: "--dry-run shows what would change; --replace does it.",
  forceRealm: "Is this the right Atlas? --force-realm takes it all the same, its instances too.",
};

/** What Atlas wants to be told, as the flag that tells it. */
function explainRefusal(error: unknown): unknown {
  if (!(error instanceof AtlasProblem)) return error;
  const hint = HINTS[String(error.body.needs)];
  if (hint === undefined) return error;
  return new Fault({ code: error.code, message: error.message, hint, cause: error.cause });
}

function format(found: Answer): string {
  const { realm, at, dryRun, changed, generation, audit } = found;
  const when = at.replace("T", " ").replace(/\.\d+Z$/, "Z");
  const rows = (["services", "instances", "intents", "settings", "ports"] as const).map((kind) => {
    const { total, added, changed, removed } = found[kind];
    return [kind, String(total), String(added), String(changed), String(removed)];
  });
  const state = `${realm} as it was at ${when}`;
  const head = changed
    ? dryRun
      ? `would become ${state}; nothing was written`
      : `${state}, in generation ${generation}${formatApplied(found)}`
    : `was so already: ${state}`;
  const entries = audit === 0 ? [] : [`${plural(audit, "missing entry", "missing entries")} of the audit trail`];
  return [head, formatTable(["", "TOTAL", "NEW", "CHANGED", "GONE"], rows), ...entries].join("\n");
}
