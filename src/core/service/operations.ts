// The paths that every service has without writing them, for HAProxy, Prometheus and people.
import { arch, hostname, platform, release } from "node:os";
import { problemResponse } from "../lib/problem.ts";
import { requestIdOf } from "../lib/http.ts";
import { VERSION } from "../lib/version.ts";
import type { Provenance } from "./config.ts";
import type { Health } from "./health.ts";
import { openApiDocument } from "./openapi.ts";
import type { Route } from "./route.ts";
import { isSecretName, MASK } from "./secret.ts";
import type { SmartService } from "./smart-service.ts";

export type Operation = (request: Request) => Response | Promise<Response>;

export type OperationsOptions = {
  readonly service: SmartService;
  readonly routes: readonly Route[];
  readonly health: Health;
  readonly metrics: () => Promise<Response>;
  readonly provenance: readonly Provenance[];
  readonly notReady: () => readonly string[];
};

/** By path. They answer GET and HEAD, and go before the service's own routes. */
export function operations(options: OperationsOptions): ReadonlyMap<string, Operation> {
  const { service, health } = options;
  return new Map<string, Operation>([
    ["/livez", () => Response.json({ status: "alive" })],
    ["/readyz", (request) => readiness(options.notReady(), request)],
    [
      "/healthcheck",
      async () => {
        const report = await health.report();
        return Response.json(report, { status: report.status === "success" ? 200 : 500 });
      },
    ],
    ["/metrics", options.metrics],
    ["/environment", () => Response.json(environment(options.provenance))],
    [
      "/openapi.json",
      () => {
        const { name, version, description } = service;
        return Response.json(openApiDocument({ title: name, version, description }, options.routes));
      },
    ],
  ]);
}

function readiness(notReady: readonly string[], request: Request): Response {
  if (notReady.length === 0) return Response.json({ status: "ready" });
  return problemResponse({
    code: "unavailable",
    status: 503,
    detail: `not ready: ${notReady.join("; ")}`,
    requestId: requestIdOf(request.headers),
    extra: { reasons: notReady },
  });
}

/** Runscope's sections. The process's own environment is left out: whatever of it counts stands under `config`. */
function environment(provenance: readonly Provenance[]): Record<string, unknown> {
  return {
    os: { platform: platform(), release: release(), arch: arch(), hostname: hostname() },
    runtime: { smartstack: VERSION, bun: Bun.version },
    process: {
      pid: process.pid,
      cwd: process.cwd(),
      argv: maskArguments(process.argv),
      uptimeSeconds: Math.round(process.uptime()),
    },
    config: Object.fromEntries(provenance.map(({ key, shown, source }) => [key, { value: shown, source }])),
  };
}

/** `KEY=VALUE` with a secret's name, wherever it stands. A declared secret may have any name, so every `--set` is masked. */
function maskArguments(argv: readonly string[]): readonly string[] {
  return argv.map((argument, index) => {
    const [name = "", ...value] = argument.replace(/^--set=/, "").split("=");
    if (value.length === 0) return argument;
    const set = argument.startsWith("--set=") || argv[index - 1] === "--set";
    return set || isSecretName(name) ? `${argument.startsWith("--set=") ? "--set=" : ""}${name}=${MASK}` : argument;
  });
}
