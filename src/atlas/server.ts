// The listening socket of Atlas.
import { type Address, formatAddress, formatHost } from "../core/lib/address.ts";
import { Fault } from "../core/lib/errors.ts";
import { listenTcp } from "../core/lib/listen.ts";
import type { Respond } from "./router.ts";

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
export function serve(address: Address, respond: Respond, idleS = IDLE_S): Server {
  const server = listenTcp(
    {
      ...address,
      idleS,
      // larger bodies are refused by us, with a problem document
      maxBodyBytes: Number.MAX_SAFE_INTEGER,
      fetch: (request, self) =>
        respond(request, {
          address: self.requestIP(request)?.address ?? "",
          noIdleLimit() {
            self.timeout(request, 0);
            return () => self.timeout(request, idleS);
          },
        }),
    },
    (busy, cause) => faultOf(address, busy, cause),
  );
  return {
    url: `http://${formatHost(address.host)}:${server.port}`,
    async stop() {
      // not awaited: it would also wait for connections that are idle
      void server.stop();
      const deadline = performance.now() + STOP_MS;
      while (server.pendingRequests > 0 && performance.now() < deadline) await Bun.sleep(5);
      await server.stop(true);
    },
  };
}

function faultOf(address: Address, busy: boolean, cause: unknown): Fault {
  const shown = formatAddress(address);
  if (busy) {
    return new Fault({
      code: "address_in_use",
      message: `cannot listen on ${shown}: another program does`,
      hint: `Stop it, or choose another address with --listen. "ss -ltnp 'sport = :${address.port}'" shows who it is.`,
      cause,
    });
  }
  return new Fault({
    code: "address_refused",
    message: `cannot listen on ${shown}`,
    hint: "Is it an address of this machine, and may this user use the port?",
    cause,
  });
}
