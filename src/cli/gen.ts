import { resolve } from "node:path";
import { systemClock } from "../core/lib/clock.ts";
import { Fault } from "../core/lib/errors.ts";
import { ownCommand } from "../serve/self.ts";
import { type Command, defineCommand, usageError } from "./command.ts";
import { inheritedEnvironment } from "./config.ts";
import { atlasOptions, connectAtlas } from "./connection.ts";
import { EXIT } from "./exit-codes.ts";
import { print } from "./output.ts";
import { option, path, port, text, toggle } from "./options.ts";

export const gen: Command = defineCommand({
  name: "gen",
  summary: "write a new service that runs at once",
  arguments: [{ name: "NAME", describe: "the service's name", optional: true }],
  examples: [
    "smartstack gen identity",
    "smartstack gen identity --dry-run",
    "smartstack gen reports --template command --dir services/reports",
    "smartstack gen --update",
  ],
  options: {
    update: option(toggle, "merge what the template makes today into the project here, on a branch", false),
    dir: option(path("DIR"), "where it goes, default ./NAME; with --update where it is, default here"),
    port: option(port, "its port, default one that Atlas reserves, else a free one"),
    template: option(
      text("NAME|DIR"),
      "typescript, minimal, command, or a directory of your own (./DIR)",
      "typescript",
    ),
    dryRun: option(toggle, "print the files and the diff, write nothing", false),
    force: option(toggle, "replace the generated files of a directory that is not empty", false),
    noGit: option(toggle, "no repository, no first commit", false),
    ...atlasOptions,
  },
  async run({ values, sources, args }) {
    const [name] = args;
    if (values.update !== (name === undefined))
      throw usageError(gen, values.update ? "--update takes no NAME: it updates a project" : "missing NAME");
    const workingDirectory = process.cwd();
    const deps = {
      clock: systemClock,
      program: ownCommand(),
      environment: inheritedEnvironment(),
      signal: interruptSignal(),
      print,
    };
    if (name === undefined) {
      const { update } = await import("../gen/update.ts");
      const template = sources.template.kind === "default" ? undefined : values.template;
      await update({ directory: resolve(values.dir ?? "."), workingDirectory, template }, deps);
      return EXIT.done;
    }
    const { generate } = await import("../gen/generate.ts");
    await generate(
      {
        name,
        directory: resolve(values.dir ?? name),
        workingDirectory,
        template: values.template,
        port: values.port,
        dryRun: values.dryRun,
        force: values.force,
        git: !values.noGit,
        expectAtlas: sources.atlas.kind !== "default",
      },
      { ...deps, atlas: connectAtlas({ values, sources }) },
    );
    return EXIT.done;
  },
});

/** Aborts at the first SIGINT or SIGTERM; a second one ends the process as ever. */
function interruptSignal(): AbortSignal {
  const interrupt = new AbortController();
  const stop = (): void => interrupt.abort(new Fault({ code: "interrupted", message: "interrupted" }));
  process.once("SIGINT", stop);
  process.once("SIGTERM", stop);
  return interrupt.signal;
}
