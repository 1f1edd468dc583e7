// What clients made from one another share: time, chance, the environment, and what is known of each service.
import { type Clock, steadyClock } from "../lib/clock.ts";
import { type Alarms, alarms } from "./alarms.ts";
import { type Bulkheads, bulkheads } from "./bulkhead.ts";
import { invalidRequest } from "./error.ts";
import { type Fetch, isWebUrl } from "./options.ts";
import { serviceState, type ServiceState } from "./service-state.ts";
import { requestPlaces } from "./transport.ts";

/** What a client is made of; tests give their own. */
export type ClientParts = {
  /** @default the system's, unmoved by whoever sets it: deadlines are compared with it */
  readonly clock?: Clock;
  /** Returns a number in [0, 1). @default Math.random */
  readonly random?: () => number;
  /** SMARTSTACK_ROUTER, SMARTSTACK_REALM and SMARTSTACK_SERVICE_NAME are read from it. @default process.env */
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** What sends when the options name nothing. @default the runtime's fetch */
  readonly fetch?: Fetch;
};

export interface Core {
  readonly clock: Clock;
  readonly random: () => number;
  readonly fetch: Fetch;
  state(service: string): ServiceState;
  /** States of the services called so far. */
  states(): Iterable<ServiceState>;
  readonly alarms: Alarms;
  /** Base URL of the host's HAProxy when the options name none. @throws SmartClientError `invalid_request` */
  router(): string;
  /** The address of a service in the realm `local`, when one was given. @throws SmartClientError `invalid_request` */
  readonly address: (service: string) => string | undefined;
}

export const DEFAULT_ROUTER = "http://127.0.0.1:4000";

// the runtime's limit is the process's, so the places under it are shared by every client of the process
let shared: Bulkheads | undefined;

export function createCore(parts: ClientParts = {}): Core {
  // process.env is read when first needed, not when the module loads: programs set it at their start
  const environment = (): Readonly<Record<string, string | undefined>> => parts.environment ?? process.env;
  const states = new Map<string, ServiceState>();
  const addresses = new Map<string, string | undefined>();
  let router: string | undefined;

  const clock = parts.clock ?? steadyClock;

  return {
    clock,
    alarms: alarms(clock),
    random: parts.random ?? Math.random,
    // looked up at each call: a test, or a tracer, may have replaced it
    fetch: parts.fetch ?? ((url, init) => fetch(url, init)),
    state(service) {
      let state = states.get(service);
      if (state === undefined) {
        shared ??= bulkheads(requestPlaces(process.env));
        state = serviceState(service, shared);
        states.set(service, state);
      }
      return state;
    },
    states: () => states.values(),
    router: () => (router ??= routerOf(environment())),
    address(service) {
      if (addresses.has(service)) return addresses.get(service);
      const found = addressOf(service, environment());
      addresses.set(service, found);
      return found;
    },
  };
}

function routerOf(environment: Readonly<Record<string, string | undefined>>): string {
  const router = environment.SMARTSTACK_ROUTER || DEFAULT_ROUTER;
  if (!isWebUrl(router)) throw invalidRequest(`SMARTSTACK_ROUTER must be an http:// URL, not "${router}"`);
  return router;
}

/** `my-service` → `SMARTSTACK_SERVICE_MY_SERVICE`. */
export function addressVariable(service: string): string {
  return `SMARTSTACK_SERVICE_${service.replaceAll("-", "_").toUpperCase()}`;
}

/** Addresses count in the realm `local` alone: elsewhere a stray variable must not lead around the router. */
function addressOf(service: string, environment: Readonly<Record<string, string | undefined>>): string | undefined {
  if ((environment.SMARTSTACK_REALM || "local") !== "local") return undefined;
  const name = addressVariable(service);
  const value = environment[name] || undefined;
  if (value !== undefined && !isWebUrl(value))
    throw invalidRequest(`${name} must be an http:// URL, not "${value}"`, service);
  return value;
}
