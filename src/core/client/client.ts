import { all, type AllOptions, type Task } from "./all.ts";
import { type Base, type Input, prepare } from "./call.ts";
import { type ClientParts, type Core, createCore } from "./core.ts";
import { invalidRequest } from "./error.ts";
import { exchange } from "./exchange.ts";
import { SERVICE_NAME } from "../model/names.ts";
import { type CallOptions, DEFAULTS, type Settings, settingsOf, type SmartClientOptions } from "./options.ts";
import { SmartRequest } from "./request.ts";
import { type ServiceStats, statsOf } from "./stats.ts";
import { remember, targetOf } from "./target.ts";

/**
 * Calls services by name. Every method returns at once; what it returns is awaited for the response, or asked for
 * `.json()`, `.text()`, `.bytes()`, `.stream()` or `.safe()`. A final status of 400 or more is thrown as SmartClientError.
 */
export interface SmartClient {
  get(input: Input, options?: CallOptions): SmartRequest;
  head(input: Input, options?: CallOptions): SmartRequest;
  put(input: Input, options?: CallOptions): SmartRequest;
  delete(input: Input, options?: CallOptions): SmartRequest;
  post(input: Input, options?: CallOptions): SmartRequest;
  patch(input: Input, options?: CallOptions): SmartRequest;
  /** Any method; without one, the Request's own, else GET. */
  request(input: Input, options?: CallOptions & { readonly method?: string }): SmartRequest;
  /** A client with other defaults; it shares what is known of each service with this one. */
  extend(options: SmartClientOptions): SmartClient;
  /** A client whose paths are that service's: `smartClient.service("identity").get("/teams")`. */
  service(name: string, options?: SmartClientOptions): SmartClient;
  /**
   * Many at once, at most `concurrency` (16) at a time: `all({teams: () => …, users: () => …})` gives `{teams, users}`,
   * a list gives a list. The first failure stops what has not begun, aborts the signal that tasks get, and is thrown.
   */
  all<T extends readonly Task<unknown>[] | Readonly<Record<string, Task<unknown>>>>(
    tasks: T,
    options?: AllOptions,
  ): Promise<{ -readonly [K in keyof T]: T[K] extends Task<infer R> ? R : never }>;
  /** How calls to one service went, and how its policies stand. */
  stats(service: string): ServiceStats;
  /** The same for every service called so far. */
  stats(): readonly ServiceStats[];
}

/** A client of its own, that shares nothing with `smartClient`. @throws SmartClientError `invalid_request` */
export function createSmartClient(options: SmartClientOptions = {}, parts: ClientParts = {}): SmartClient {
  return clientOf(createCore(parts), settingsOf(DEFAULTS, options), undefined);
}

function clientOf(core: Core, settings: Settings, prefix: string | undefined): SmartClient {
  const aim = remember((input) => targetOf(input, prefix, undefined, settings.router ?? core.router(), core.address));
  const base: Base = { core, settings, prefix, aim };
  const call = (method: string | undefined, input: Input, options: CallOptions | undefined): SmartRequest =>
    new SmartRequest((answer) => {
      const prepared = prepare(base, method, input, options);
      return prepared instanceof Promise
        ? prepared.then((ready) => exchange(core, ready, answer))
        : exchange(core, prepared, answer);
    });
  function stats(service: string): ServiceStats;
  function stats(): readonly ServiceStats[];
  function stats(service?: string): ServiceStats | readonly ServiceStats[] {
    const { budget } = settings.retry;
    if (service !== undefined) return statsOf(core.state(service), core.clock.now(), budget);
    return Array.from(core.states(), (state) => statsOf(state, core.clock.now(), budget));
  }
  return {
    get: (input, options) => call("GET", input, options),
    head: (input, options) => call("HEAD", input, options),
    put: (input, options) => call("PUT", input, options),
    delete: (input, options) => call("DELETE", input, options),
    post: (input, options) => call("POST", input, options),
    patch: (input, options) => call("PATCH", input, options),
    request: (input, options) => call(options?.method, input, options),
    extend: (options) => clientOf(core, settingsOf(settings, options), prefix),
    service(name, options = {}) {
      if (!SERVICE_NAME.test(name)) throw invalidRequest(`"${name}" is not a service name`, name);
      return clientOf(core, settingsOf(settings, options), `service://${name}`);
    },
    all,
    stats,
  };
}
