// A laptop's whole realm under one command: Atlas, a sidecar and HAProxy, which end together.
import { formatAddress } from "../core/lib/address.ts";
import { join } from "node:path";
import { describeError } from "../core/lib/errors.ts";
import type { Running } from "../core/lib/running.ts";
import { defineCommand } from "./command.ts";
import { EXIT } from "./exit-codes.ts";
import { runProgram } from "./lifecycle.ts";
import { defaultStateDirectory, hostPort, option, path, shared } from "./options.ts";

export const dev = defineCommand({
  name: "dev",
  summary: "Atlas, a sidecar and HAProxy on this machine, until Ctrl-C",
  examples: ["smartstack dev", "smartstack dev --bind 127.0.0.1:4100 --state-dir ./dev-state"],
  options: {
    listen: option(hostPort, "address of Atlas", { host: "127.0.0.1", port: 7400 }),
    bind: option(hostPort, "address of HAProxy, where requests go", { host: "127.0.0.1", port: 4000 }),
    admin: option(hostPort, "address of the sidecar's read-only admin port", { host: "127.0.0.1", port: 4001 }),
    stateDir: option(path("DIR"), "directory of everything it keeps; made when missing", defaultStateDirectory()),
    haproxy: option(path("PATH"), "HAProxy's executable, when it is not on the PATH"),
    realm: shared.realm,
    logLevel: option(shared.logLevel.kind, "least level that is logged", "warn"),
    logFormat: shared.logFormat,
  },
  async run({ values }) {
    const [{ startAtlas }, { startSidecar }, { createLogger }] = await Promise.all([
      import("../atlas/atlas.ts"),
      import("../sidecar/sidecar.ts"),
      import("../core/lib/logger.ts"),
    ]);
    const { realm, stateDir, logLevel, logFormat } = values;
    const logger = (name: string) => createLogger({ name, level: logLevel, format: logFormat });

    const start = async (): Promise<Running> => {
      const atlas = await startAtlas(
        { listen: values.listen, realm, store: { kind: "embedded", dataDir: join(stateDir, "atlas") } },
        { logger: logger("atlas") },
      );
      try {
        const sidecar = await startSidecar(
          {
            atlas: { urls: [atlas.url] },
            realm,
            host: "localhost",
            address: "127.0.0.1",
            zone: "",
            bind: values.bind,
            admin: values.admin,
            stateDir,
            haproxy: values.haproxy,
            haproxyOnStop: "end",
          },
          { logger: logger("sidecar") },
        );
        console.log(introduction(atlas.url, sidecar.info.router, formatAddress(values.admin)));
        return together([sidecar, atlas]);
      } catch (error) {
        await atlas.stop();
        throw error;
      }
    };

    const fault = await runProgram(start);
    if (fault !== undefined) throw fault;
    console.log("all stopped");
    return EXIT.done;
  },
});

function introduction(atlas: string, router: string, admin: string): string {
  return [
    `Atlas ${atlas} · HAProxy ${router} · sidecar http://${admin}`,
    "  smartstack gen identity          a new service",
    "  smartstack serve identity        run it; it is found at once",
    `  curl -H 'Runscope-Service: identity' ${router}/teams`,
    "Ctrl-C ends all of it.",
  ].join("\n");
}

/** Programs that live and end as one: stopped in the given order, and over when the first of them is. */
function together(programs: readonly Running[]): Running {
  const stop = async (): Promise<void> => {
    for (const program of programs) await program.stop();
  };
  const ended = Promise.race(programs.map((program) => program.ended)).then(async (fault) => {
    await stop().catch((error: unknown) => console.error(describeError(error)));
    return fault;
  });
  return { stop, ended };
}
