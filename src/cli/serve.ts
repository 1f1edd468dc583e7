import { join } from "node:path";
import type { CommandConfig } from "../serve/command.ts";
import type { LocatedCommand, LocatedEntry } from "../serve/load.ts";
import { ownCommand, raiseRequestLimit } from "../serve/self.ts";
import { defineCommand, type Invocation, usageError } from "./command.ts";
import { flagOf, inheritedEnvironment } from "./config.ts";
import { EXIT, type ExitCode } from "./exit-codes.ts";
import { runProgram } from "./lifecycle.ts";
import { defaultStateDirectory, host, integer, option, path, shared, text, texts, toggle } from "./options.ts";
import { answer } from "./output.ts";
import { formatTable } from "./table.ts";

const options = {
  port: option(integer("PORT", 0, 65_535), "default smartstack.yaml's, else a free one, as is 0"),
  listen: option(host, "address to answer on, default the agent's, else 127.0.0.1"),
  realm: option(shared.realm.kind, "environment this belongs to, default the sidecar's, else local"),
  host: option(host, "this host's name, default the sidecar's"),
  sidecar: option(path("SOCKET"), "the sidecar's socket", join(defaultStateDirectory(), "sidecar.sock")),
  name: option(text("NAME"), "the service's name, for a command or a file without smartstack.yaml"),
  healthcheck: option(text("PATH"), "for a command: what it answers with 2xx when it is well, default /healthcheck"),
  settings: option(path(), "values for the service's keys, YAML"),
  set: option(texts("KEY=VALUE"), "one value for one of the service's keys", []),
  printConfig: option(toggle, "print every key of the service, its value and its source, and end", false),
  json: shared.json,
  dev: option(toggle, "start again whenever a file changes", false),
  logDir: option(path("DIR"), "where the access and error logs go", defaultLogDirectory()),
  logMaxBytes: option(integer("BYTES", 1_000, 2 ** 40), "a log file that is larger is put aside", 64 * 1024 * 1024),
  logKeep: option(integer("N", 0, 10_000), "put-aside log files that stay", 8),
  noAccessLog: option(toggle, "log no requests", false),
  logLevel: shared.logLevel,
  logFormat: shared.logFormat,
} as const;

type ServeInvocation = Invocation<typeof options>;

export const serve = defineCommand({
  name: "serve",
  summary: "run a service: a directory, a file, or any command behind --",
  arguments: [{ name: "DIR|FILE", describe: "default the current directory", optional: true }],
  acceptsRest: "COMMAND [ARG…]",
  examples: [
    "smartstack serve identity",
    "smartstack serve identity --port 0 --set TEAMS_PER_PAGE=10",
    "smartstack serve identity --print-config",
    "smartstack serve --name billing --port 5010 --healthcheck /up -- python3 app.py",
  ],
  options,
  async run(invocation) {
    raiseRequestLimit(inheritedEnvironment());
    const { locateCommand, locateService } = await import("../serve/load.ts");
    const { values, args, rest } = invocation;
    if (rest !== undefined && args.length > 0) throw usageError(serve, "a directory or a command behind --, not both");
    const located =
      rest === undefined
        ? locateService(args[0] ?? ".", values.name)
        : locateCommand(rest, values.name, values.healthcheck);
    refuseForeignFlags(invocation, located.kind);
    if (values.dev) return serveDev(located.directory);
    return located.kind === "entry" ? serveEntry(invocation, located) : serveAnyCommand(invocation, located);
  },
});

/** Flags that would do nothing here are mistakes; the same keys in the environment or in a file may be meant for others. */
function refuseForeignFlags({ sources }: ServeInvocation, kind: "entry" | "command"): void {
  const foreign =
    kind === "command" ? (["settings", "set", "printConfig", "noAccessLog"] as const) : (["healthcheck"] as const);
  const given = foreign.filter((key) => sources[key].kind === "flag").map(flagOf);
  if (given.length === 0) return;
  const only = kind === "command" ? "a TypeScript service" : "a command behind --";
  throw usageError(serve, `${given.join(" and ")}: only for ${only}`);
}

async function serveEntry({ values, sources }: ServeInvocation, located: LocatedEntry): Promise<ExitCode> {
  const { importService } = await import("../serve/load.ts");
  const { startServe } = await import("../serve/serve.ts");
  const { settingsLayers } = await import("../serve/settings.ts");
  const { resolveServiceConfig } = await import("../core/service/config.ts");

  const { service, manifest } = await importService(located);
  const layers = settingsLayers(service.defaults, {
    file: values.settings,
    environment: inheritedEnvironment(),
    assignments: values.set,
  });
  const resolved = resolveServiceConfig(service.defaults, layers);
  if (values.printConfig) {
    answer(values.json, resolved.provenance, () =>
      formatTable(
        ["KEY", "VALUE", "SOURCE"],
        resolved.provenance.map(({ key, shown, source }) => [key, shown, source]),
      ),
    );
    return EXIT.done;
  }
  const fault = await runProgram(
    async (interrupt) => {
      const running = await startServe({
        interrupt,
        service,
        manifest,
        directory: located.directory,
        resolved,
        realm: sources.realm.kind === "default" ? undefined : values.realm,
        host: values.host,
        listen: values.listen,
        port: values.port ?? manifest.port ?? 0,
        sidecar: values.sidecar,
        logs: {
          directory: values.logDir,
          level: values.logLevel,
          format: values.logFormat,
          accessLog: !values.noAccessLog,
          maxBytes: values.logMaxBytes,
          keep: values.logKeep,
        },
      });
      // what the service's own code throws outside of a request: the log has it, and a supervisor starts it anew
      for (const event of ["uncaughtException", "unhandledRejection"] as const)
        process.on(event, (error: unknown) => {
          running.lastWords(error, event);
          process.exit(EXIT.failed);
        });
      return running;
    },
    { onHangup: (running) => running.reopenLogs() },
  );
  // timers and connections that the service left open do not keep it alive
  process.exit(fault === undefined ? EXIT.done : EXIT.failed);
}

async function serveAnyCommand({ values, sources }: ServeInvocation, located: LocatedCommand): Promise<ExitCode> {
  const { startCommand } = await import("../serve/command.ts");
  const { createLogger } = await import("../core/lib/logger.ts");
  const { manifest, directory, command } = located;
  const config: CommandConfig = {
    manifest,
    command,
    directory,
    environment: inheritedEnvironment(),
    realm: sources.realm.kind === "default" ? undefined : values.realm,
    host: values.host,
    listen: values.listen,
    port: values.port ?? manifest.port ?? 0,
    sidecar: values.sidecar,
    logger: createLogger({ name: manifest.name, level: values.logLevel, format: values.logFormat }),
  };
  let exitCode: Promise<number> = Promise.resolve(EXIT.failed);
  const fault = await runProgram(
    async () => {
      const running = await startCommand(config);
      ({ exitCode } = running);
      return running;
    },
    { onHurry: (running) => running.kill() },
  );
  // the status of the command is the status of serve, as with any wrapper, unless serve itself gave up
  const code = await exitCode;
  process.exit(fault !== undefined && code === EXIT.done ? EXIT.failed : code);
}

async function serveDev(directory: string): Promise<ExitCode> {
  const { onceAgain, startDev } = await import("../serve/dev.ts");
  const { argv, environment } = onceAgain(process.argv.slice(2), inheritedEnvironment());
  await runProgram(
    () =>
      startDev({
        directory,
        command: [...ownCommand(), ...argv],
        environment,
        say: (line) => console.error(`smartstack: ${line}`),
      }),
    { onHurry: (running) => running.kill() },
  );
  return EXIT.done;
}

function defaultLogDirectory(): string {
  return process.getuid?.() === 0 ? "/var/log/smartstack" : join(defaultStateDirectory(), "log");
}
