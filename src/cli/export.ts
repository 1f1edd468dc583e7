// export: the whole realm into a file, in one piece or not at all.
import { stat } from "node:fs/promises";
import { z } from "zod";
import { AtlasProblem } from "../core/api/atlas-client.ts";
import { readProblem } from "../core/api/exchange.ts";
import { writeFileAtomic } from "../core/lib/atomic-file.ts";
import { describeError, errorCode, Fault } from "../core/lib/errors.ts";
import { parseJson } from "../core/lib/json.ts";
import { type Command, defineCommand } from "./command.ts";
import { atlasOptions, connectAtlas } from "./connection.ts";
import { EXIT } from "./exit-codes.ts";
import { option, shared, toggle } from "./options.ts";
import { answer } from "./output.ts";
import { plural } from "./table.ts";

/** Longest time that a realm takes to arrive, in ms. */
const LONGEST_MS = 600_000;

export const exportRealm: Command = defineCommand({
  name: "export",
  summary: "write the whole realm to a file: a backup, and the way to another store",
  arguments: [{ name: "FILE", describe: "where to, replaced in one piece; - is standard output" }],
  examples: [
    "smartstack export /var/backups/smartstack/prod.jsonl",
    "smartstack export - --no-audit | gzip > prod.jsonl.gz",
  ],
  options: {
    noAudit: option(toggle, "leave the audit trail out", false),
    json: shared.json,
    ...atlasOptions,
  },
  async run({ values, sources, args: [path = ""] }) {
    if (path !== "-") await checkPath(path);
    const client = connectAtlas({ values, sources });
    const where = `/v1/export${values.noAudit ? "?audit=false" : ""}`;
    const response = await client.fetch(where, {
      headers: { accept: "application/x-ndjson" },
      signal: AbortSignal.timeout(LONGEST_MS),
    });
    if (!response.ok) throw new AtlasProblem(response.status, await readProblem(response), `GET ${where}`);
    const found = new Completeness();
    const content = found.check(response.body ?? new ReadableStream());
    if (path === "-") {
      await print(content);
      return EXIT.done;
    }
    try {
      // settings may hold what not everybody should read
      await writeFileAtomic(path, content, { mode: 0o600 });
    } catch (error) {
      if (error instanceof Fault) throw error;
      throw new Fault({ code: "file", message: `nothing was written to ${path}`, cause: error });
    }
    const { realm, generation, revision, lines } = found.facts();
    answer(
      values.json,
      { file: path, realm, generation, revision, lines },
      () => `${realm} at revision ${revision}: ${plural(lines, "line")} in ${path}`,
    );
    return EXIT.done;
  },
});

/** Renamed over a device or a pipe, the backup would take its place. */
async function checkPath(path: string): Promise<void> {
  const found = await stat(path).catch((error: unknown) => {
    if (errorCode(error) === "ENOENT") return undefined;
    throw new Fault({ code: "file", message: `${path} cannot be written: ${describeError(error)}`, cause: error });
  });
  if (found === undefined || found.isFile()) return;
  const hint = "Name a file, or - for standard output.";
  throw new Fault({ code: "usage", message: `${path} is no regular file`, hint });
}

async function print(content: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const piece of content) {
    await new Promise<void>((resolve, reject) => {
      process.stdout.write(piece, (error) => (error ? reject(lost(error)) : resolve()));
    });
  }
}

function lost(cause: Error): Fault {
  return new Fault({ code: "file", message: "standard output took only a part of it", cause });
}

const headSchema = z.object({
  kind: z.literal("header"),
  realm: z.string(),
  generation: z.int(),
  revision: z.int(),
});
const endSchema = z.object({ kind: z.literal("end"), lines: z.int() });

/** Lets a backup through and looks at its two ends: one that Atlas could not finish must not replace a good one. */
class Completeness {
  #head = "";
  #last = "";
  #lines = 0;

  async *check(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
    const decoder = new TextDecoder();
    let rest = "";
    try {
      for await (const piece of body) {
        const lines = (rest + decoder.decode(piece, { stream: true })).split("\n");
        rest = lines.pop() ?? "";
        if (this.#lines === 0) this.#head = lines[0] ?? "";
        this.#lines += lines.length;
        this.#last = lines.at(-1) ?? this.#last;
        yield piece;
      }
    } catch (error) {
      throw incomplete(error);
    }
    const end = endSchema.safeParse(parseJson(this.#last)).data;
    if (end?.lines !== this.#lines || rest !== "") throw incomplete();
  }

  /** What was let through, once it is through. */
  facts(): Omit<z.output<typeof headSchema>, "kind"> & { readonly lines: number } {
    const { realm, generation, revision } = headSchema.parse(parseJson(this.#head));
    return { realm, generation, revision, lines: this.#lines };
  }
}

function incomplete(cause?: unknown): Fault {
  return new Fault({
    code: "incomplete",
    message: "the backup broke off before its end",
    hint: "Nothing was kept of it. Atlas's log may say why; try again.",
    cause,
  });
}
