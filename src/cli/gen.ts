import { resolve } from "node:path";
import { createAtlasClient } from "../core/api/atlas-client.ts";
import { systemClock } from "../core/lib/clock.ts";
import { Fault } from "../core/lib/errors.ts";
import { defineCommand } from "./command.ts";
import { formatSource, inheritedEnvironment, readText } from "./config.ts";
import { EXIT } from "./exit-codes.ts";
import { option, path, port, shared, text, toggle } from "./options.ts";

export const gen = defineCommand({
  name: "gen",
  summary: "write a new service that runs at once",
  arguments: [{ name: "NAME", describe: "the service's name" }],
  examples: [
    "smartstack gen identity",
    "smartstack gen identity --dry-run",
    "smartstack gen reports --template command --dir services/reports",
  ],
  options: {
    dir: option(path("DIR"), "where it goes, default ./NAME"),
    port: option(port, "its port, default one that Atlas reserves, else a free one"),
    template: option(
      text("NAME|DIR"),
      "typescript, minimal, command, or a directory of your own (./DIR)",
      "typescript",
    ),
    dryRun: option(toggle, "print the files and the diff, write nothing", false),
    force: option(toggle, "replace the generated files of a directory that is not empty", false),
    noGit: option(toggle, "no repository, no first commit", false),
    atlas: shared.atlas,
    tokenFile: shared.tokenFile,
    tlsCa: shared.tlsCa,
  },
  async run({ values, sources, args }) {
    const { generate } = await import("../gen/generate.ts");
    const [name = ""] = args;
    const file = (path: string | undefined, key: "tokenFile" | "tlsCa"): string | undefined =>
      path === undefined ? undefined : readText(path, key, formatSource(sources[key]));
    const interrupt = new AbortController();
    const stop = (): void => interrupt.abort(new Fault({ code: "interrupted", message: "interrupted" }));
    process.once("SIGINT", stop);
    process.once("SIGTERM", stop);
    await generate(
      {
        name,
        directory: resolve(values.dir ?? name),
        workingDirectory: process.cwd(),
        template: values.template,
        port: values.port,
        dryRun: values.dryRun,
        force: values.force,
        git: !values.noGit,
        expectAtlas: sources.atlas.kind !== "default",
      },
      {
        atlas: createAtlasClient({
          urls: values.atlas,
          token: file(values.tokenFile, "tokenFile")?.trim(),
          tlsCa: file(values.tlsCa, "tlsCa"),
        }),
        clock: systemClock,
        program: ownProgram(),
        environment: inheritedEnvironment(),
        signal: interrupt.signal,
        print: (lines) => console.log(lines),
      },
    );
    return EXIT.done;
  },
});

/** How to run this program again: the compiled binary is its own, from source it is Bun and main.ts. */
function ownProgram(): readonly string[] {
  const entry = Bun.main;
  return entry.startsWith("/$bunfs/") ? [process.execPath] : [process.execPath, entry];
}
