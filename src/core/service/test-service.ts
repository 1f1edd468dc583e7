import { hostname } from "node:os";
import { smartClient, type SmartClient } from "../client/index.ts";
import { type Clock, systemClock } from "../lib/clock.ts";
import { type Logger, silentLogger } from "../lib/logger.ts";
import { Application } from "./application.ts";
import { resolveServiceConfig } from "./config.ts";
import { asSmartService } from "./smart-service.ts";

export type TestServiceOptions = {
  /** Values for keys of `defaults`, as they would stand in a settings file. The environment is not read. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** @default "local" */
  readonly realm?: string;
  /** Stands in for the smart client: `smartClient.extend({ fetch: async () => Response.json([]) })`. */
  readonly api?: SmartClient;
  /** @default one that writes nowhere */
  readonly logger?: Logger;
  /** @default the real one */
  readonly clock?: Clock;
};

/** A service under test: no port, no sidecar, no logs. */
export type TestedService = {
  /** One request, as if it had come over HTTP; `path` begins with `/`. The service starts with the first one. */
  request(path: string, init?: RequestInit): Promise<Response>;
  /** Runs what the service added with `onStop`. */
  stop(): Promise<void>;
};

/**
 * Runs a service in this process, for its tests: whatever a service file may export by default.
 * @throws (from the first `request`) ConfigError, and what the service's definition throws
 */
export function testService(exported: unknown, options: TestServiceOptions = {}): TestedService {
  const service = asSmartService(exported, "test");
  let started: Promise<Application> | undefined;
  const start = (): Promise<Application> =>
    Application.start(service, {
      realm: options.realm ?? "local",
      resolved: resolveServiceConfig(service.defaults, [
        {
          form: "data",
          closed: true,
          values: new Map(Object.entries(options.config ?? {}).map(([key, raw]) => [key, { raw, source: "the test" }])),
        },
      ]),
      logger: options.logger ?? silentLogger,
      api: options.api ?? smartClient,
      clock: options.clock ?? systemClock,
      hostname: hostname(),
    });
  return {
    async request(path, init) {
      started ??= start();
      const application = await started;
      return application.fetch(new Request(new URL(path, "http://localhost").href, init ?? {}));
    },
    async stop() {
      await (await started)?.stop();
    },
  };
}
