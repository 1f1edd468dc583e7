import type { Address } from "../core/lib/address.ts";
import { defineCommand } from "./command.ts";
import { describeError } from "../core/lib/errors.ts";
import { atlasOptions, liveAccess } from "./connection.ts";
import { EXIT } from "./exit-codes.ts";
import { runProgram } from "./lifecycle.ts";
import { label } from "../core/model/names.ts";
import {
  defaultHost,
  defaultStateDirectory,
  host,
  hostPort,
  type Kind,
  option,
  path,
  shared,
  toggle,
} from "./options.ts";

const zone: Kind<string> = { placeholder: "ZONE", schema: label };

// clients have to know it: the system must not choose
const fixedHostPort: Kind<Address> = {
  ...hostPort,
  schema: hostPort.schema.refine(({ port }) => port !== 0, "must name a port"),
};

export const sidecar = defineCommand({
  name: "sidecar",
  summary: "run this host's sidecar: it follows Atlas and keeps the host's HAProxy right",
  examples: ["smartstack sidecar", "smartstack sidecar --atlas http://10.0.0.1:7400 --realm prod --zone eu-1a"],
  options: {
    ...atlasOptions,
    realm: shared.realm,
    host: option(host, "this host's name in the registry", defaultHost()),
    address: option(
      host,
      "where others reach this host; default 127.0.0.1 when every Atlas is on loopback, else the source address towards Atlas",
    ),
    zone: option(zone, "this host's zone, for what prefers near instances", ""),
    bind: option(fixedHostPort, "address where HAProxy takes requests", { host: "127.0.0.1", port: 4000 }),
    admin: option(hostPort, "address of the read-only admin port", { host: "127.0.0.1", port: 4001 }),
    stateDir: option(path("DIR"), "state, socket and HAProxy's files; made when missing", defaultStateDirectory()),
    haproxy: option(path(), "HAProxy 2.6 or newer; default the one on PATH"),
    stopHaproxy: option(toggle, "end HAProxy with the sidecar, instead of letting it serve on for the next one", false),
    logLevel: shared.logLevel,
    logFormat: shared.logFormat,
  },
  async run({ values, sources }) {
    const atlas = liveAccess({ values, sources });
    const { startSidecar } = await import("../sidecar/sidecar.ts");
    const { createLogger } = await import("../core/lib/logger.ts");
    const logger = createLogger({ name: "sidecar", level: values.logLevel, format: values.logFormat });
    const { realm, address, bind, admin, stateDir, haproxy } = values;
    const fault = await runProgram(
      async () => {
        const running = await startSidecar(
          {
            atlas,
            realm,
            host: values.host,
            address,
            zone: values.zone,
            bind,
            admin,
            stateDir,
            haproxy,
            haproxyOnStop: values.stopHaproxy ? "end" : "keep",
          },
          { logger },
        );
        const { router, host } = running.info;
        logger.info(
          { router, admin: running.admin, socket: running.socket, host, realm, stateDir },
          `the sidecar of ${host} is ready: requests at ${router}, admin at ${running.admin}, realm ${realm}`,
        );
        return running;
      },
      {
        onHangup(running) {
          try {
            atlas.reload();
            logger.info("token and certificate authority: read again");
          } catch (error) {
            logger.error(
              `token and certificate authority: not usable, what was read before stays: ${describeError(error)}`,
            );
          }
          running.retry();
        },
      },
    );
    if (fault !== undefined) throw fault;
    logger.info(
      values.stopHaproxy ? "the sidecar and HAProxy have stopped" : "the sidecar has stopped, HAProxy serves on",
    );
    return EXIT.done;
  },
});
