// The listening socket of Atlas.
import { errorCode, Fault } from "../core/lib/errors.ts";
import type { Respond } from "./router.ts";

export type Address = { readonly host: string; readonly port: number };

export type Server = {
  readonly url: string;
  /** Takes no more requests, lets those in flight end for at most a second, then closes every connection. */
  stop(): Promise<void>;
};

/** Bun's maximum. */
const IDLE_S = 255;
const STOP_MS = 1_000;

/**
 * @param idleS longest pause on a connection that carries no stream and no wait, in s
 * @throws Fault `address_in_use`, `address_refused`
 */
export function serve({ host, port }: Address, respond: Respond, idleS = IDLE_S): Server {
  const shown = `${host.includes(":") ? `[${host}]` : host}:${port}`;
  let server: Bun.Server<undefined>;
  try {
    server = Bun.serve({
      hostname: host,
      port,
      idleTimeout: idleS,
      // larger bodies are refused by us, with a problem document
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
      development: false,
      // without it, development: false lets a second process listen on the same port, and each gets half the connections
      reusePort: false,
      fetch: (request, self) =>
        respond(request, {
          address: self.requestIP(request)?.address ?? "",
          noIdleLimit() {
            self.timeout(request, 0);
            return () => self.timeout(request, idleS);
          },
        }),
    });
  } catch (error) {
    if (errorCode(error) === "EADDRINUSE") {
      throw new Fault({
        code: "address_in_use",
        message: `cannot listen on ${shown}: another program does`,
        hint: `Stop it, or choose another address with --listen. "ss -ltnp 'sport = :${port}'" shows who it is.`,
        cause: error,
      });
    }
    throw new Fault({
      code: "address_refused",
      message: `cannot listen on ${shown}`,
      hint: "Is it an address of this machine, and may this user use the port?",
      cause: error,
    });
  }
  return {
    url: `http://${host.includes(":") ? `[${host}]` : host}:${server.port}`,
    async stop() {
      // not awaited: it would also wait for connections that are idle
      void server.stop();
      const deadline = performance.now() + STOP_MS;
      while (server.pendingRequests > 0 && performance.now() < deadline) await Bun.sleep(5);
      await server.stop(true);
    },
  };
}
