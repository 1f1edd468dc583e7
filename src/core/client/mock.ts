// For the tests of whoever calls services: a real smart client with services in memory behind it, and a clock in which
// waiting takes no time, so that retries and timeouts can be tested as fast as anything else.
import { type FakeClock, fakeClock } from "../lib/clock.ts";
import { createSmartClient, type SmartClient } from "./client.ts";
import { DEFAULT_ROUTER } from "./core.ts";
import type { Fetch, SmartClientOptions } from "./options.ts";

/** A service in memory: any fetch handler, or an object that has one (a hono app). */
export type MockService =
  | ((request: Request) => Response | Promise<Response>)
  | { fetch(request: Request): Response | Promise<Response> };

/**
 * What happens to a request instead of its being answered: a status that the service answers with, or
 * `refused` (the router is not there), `dropped` (the connection is lost after the request was read), `stalled` (no answer
 * until the client gives up), `no_instance` (HAProxy knows no usable instance; nothing was sent).
 */
export type MockFault = number | "refused" | "dropped" | "stalled" | "no_instance";

/** A request that reached a service, or would have. */
export type MockRequest = {
  readonly service: string;
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  readonly headers: Headers;
  /** The fault it met, if any. */
  readonly fault?: MockFault;
};

export interface MockServices {
  /** Calls these services. Its policies are the real ones. */
  readonly client: SmartClient;
  /** For `extend({ fetch })` of another client. */
  readonly fetch: Fetch;
  /** Stands still, except that every wait of the client moves it on at once. `advance` it to let a timeout pass. */
  readonly clock: FakeClock;
  /** Every request so far, in order. */
  readonly requests: readonly MockRequest[];
  /** The next requests to a service meet these faults, one each; those after them are answered. */
  readonly fail: (service: string, ...faults: readonly MockFault[]) => void;
}

/**
 * @example
 * const { client, fail, requests } = mockServices({ identity: app });
 * fail("identity", 503, "dropped");
 * expect(await client.get("service://identity/teams").json()).toEqual([]);
 * expect(requests).toHaveLength(3);
 */
export function mockServices(
  services: Readonly<Record<string, MockService>>,
  options: SmartClientOptions = {},
): MockServices {
  const clock = hastyClock();
  const requests: MockRequest[] = [];
  const faults = new Map<string, MockFault[]>();

  const fetch: Fetch = async (url, init) => {
    const request = new Request(url, init);
    const service = request.headers.get("runscope-service") ?? new URL(url).host;
    const fault = faults.get(service)?.shift();
    const { pathname, search } = new URL(url);
    requests.push({
      service,
      method: request.method,
      path: pathname + search,
      headers: request.headers,
      ...(fault === undefined ? {} : { fault }),
    });
    if (fault !== undefined) return suffer(fault, service, init.signal ?? undefined);
    const handler = Object.hasOwn(services, service) ? services[service] : undefined;
    if (handler === undefined) return proxyReply(404, `no service "${service}" is registered`);
    const answer = Promise.resolve(typeof handler === "function" ? handler(request) : handler.fetch(request));
    return unlessAborted(answer, init.signal ?? undefined);
  };

  return {
    client: createSmartClient({ router: DEFAULT_ROUTER, ...options, fetch }, { clock, environment: {} }),
    fetch,
    clock,
    requests,
    fail(service, ...more) {
      faults.set(service, [...(faults.get(service) ?? []), ...more]);
    },
  };
}

function suffer(fault: MockFault, service: string, signal: AbortSignal | undefined): Promise<Response> | Response {
  switch (fault) {
    case "refused":
      throw Object.assign(new TypeError("mock: connection refused"), { code: "ECONNREFUSED" });
    case "dropped":
      throw Object.assign(new TypeError("mock: connection lost"), { code: "ECONNRESET" });
    case "stalled":
      return unlessAborted(new Promise<Response>(() => undefined), signal);
    case "no_instance":
      return proxyReply(503, `no instance of "${service}" is usable`);
    default:
      return new Response(null, { status: fault });
  }
}

/** As the host's HAProxy answers when there is nowhere to send a request. */
function proxyReply(status: number, detail: string): Response {
  return Response.json(
    { type: "about:blank", status, detail },
    { status, headers: { "content-type": "application/problem+json", "smartstack-reply": "proxy" } },
  );
}

function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

/** A fake clock that moves on by itself while someone sleeps and nobody else moves it. */
function hastyClock(): FakeClock {
  const clock = fakeClock();
  const sleepers = new Set<{ readonly until: number }>();
  let moving = 0;
  const move = async (ms: number): Promise<void> => {
    moving += 1;
    await clock.advance(ms);
    moving -= 1;
    hurry();
  };
  const hurry = (): void => {
    if (moving > 0 || sleepers.size === 0) return;
    const soonest = Math.min(...Array.from(sleepers, ({ until }) => until));
    void move(Math.max(0, soonest - clock.now()));
  };
  return {
    now: () => clock.now(),
    after: (ms, run) => clock.after(ms, run),
    advance: move,
    async sleep(ms, signal) {
      const sleeper = { until: clock.now() + ms };
      sleepers.add(sleeper);
      const slept = clock.sleep(ms, signal);
      hurry();
      try {
        await slept;
      } finally {
        sleepers.delete(sleeper);
      }
    },
    get pending() {
      return clock.pending;
    },
  };
}
