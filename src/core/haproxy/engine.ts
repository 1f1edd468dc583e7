// The parts behind createProxy, put together once it is known which HAProxy this machine has.
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../lib/clock.ts";
import { type Addresses, createAddresses } from "./addresses.ts";
import { findBinary, maxconnOf, openFilesLimit, threadsOf } from "./binary.ts";
import { type Candidates, createCandidates } from "./candidate.ts";
import { type Convergence, createConvergence } from "./converge.ts";
import { createHaproxy, type Haproxy } from "./haproxy.ts";
import { pathsIn } from "./process.ts";
import type { ProxyOptions } from "./proxy.ts";
import type { RenderContext } from "./render.ts";
import { validate } from "./validate.ts";

export type Engine = {
  readonly haproxy: Haproxy;
  readonly candidates: Candidates;
  readonly addresses: Addresses;
  readonly convergence: Convergence;
};

export type EngineEvents = {
  /** A name was resolved after nobody waited for it any more. */
  readonly onLateAddress: () => void;
  readonly onReload: (reasons: readonly string[]) => void;
};

/** @throws Fault `path_too_long`, `haproxy_missing`, `haproxy_old` */
export async function createEngine(
  options: ProxyOptions,
  clock: Clock,
  { onLateAddress, onReload }: EngineEvents,
): Promise<Engine> {
  const paths = pathsIn(options.directory);
  const binary = await findBinary(options.haproxy);
  const context: RenderContext = {
    bind: options.bind,
    header: options.header ?? "Runscope-Service",
    maxconn: options.maxconn ?? maxconnOf(openFilesLimit()),
    threads: options.threads ?? threadsOf(),
    prometheus: binary.prometheus,
    metricsSocket: paths.metrics,
  };
  await mkdir(paths.directory, { recursive: true });
  const { logger } = options;
  const haproxy = createHaproxy({ binary, paths, context, clock });
  return {
    haproxy,
    candidates: createCandidates({
      context,
      validate: (rendered) => validate(binary.path, rendered, join(paths.directory, "check")),
    }),
    addresses: createAddresses({ clock, onLate: onLateAddress }),
    convergence: createConvergence({ haproxy, clock, logger, onReload }),
  };
}
