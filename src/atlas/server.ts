// The listening socket of Atlas, and how its certificate is renewed while it listens.
import { type Address, formatHost } from "../core/lib/address.ts";
import { listenFault, listenTcp } from "../core/lib/listen.ts";
import type { Certificate } from "./certificate.ts";
import type { Respond } from "./router.ts";

type Listener = Bun.Server<undefined>;

export type ServeOptions = {
  readonly address: Address;
  readonly respond: Respond;
  /** With it HTTPS, else HTTP. */
  readonly certificate?: Certificate | undefined;
  /** Longest pause on a connection that carries no stream and no wait, in s. @default 60 */
  readonly idleS?: number;
};

export type Server = {
  readonly url: string;
  /**
   * New connections get this certificate; those that are open, streams above all, go on with the one they began with.
   * @throws Fault `address_refused` when it cannot be used: then everything stays as it was
   */
  renew(certificate: Certificate): void;
  /** Takes no more requests, lets those in flight end for at most a second, then closes every connection. */
  stop(): Promise<void>;
};

/** An agent acks every 10 s, so its connection stays; Bun itself closes one whose headers do not end within 12 s. */
const IDLE_S = 60;
const STOP_MS = 1_000;
/** How long the old listener and the new one share the port, in ms: until every client on a kept connection was told to leave. */
const HAND_OVER_MS = 1_000;

/** @throws Fault `address_in_use`, `address_refused` */
export function serve({ address, respond, certificate, idleS = IDLE_S }: ServeOptions): Server {
  /** Newest first. Only the first takes connections for good, the others serve those they have. */
  let listeners: readonly Listener[] = [];
  const handOvers = new Set<Timer>();

  const listen = (port: number, tls: Certificate | undefined): Listener =>
    listenTcp(
      {
        host: address.host,
        port,
        idleS,
        tls,
        // Bun cannot change the certificate of a listener (oven-sh/bun#43815): a second one takes over
        shared: tls !== undefined,
        // larger bodies are refused by us, with a problem document
        maxBodyBytes: Number.MAX_SAFE_INTEGER,
        async fetch(request, self) {
          const response = await respond(request, {
            address: self.requestIP(request)?.address ?? "",
            noIdleLimit() {
              self.timeout(request, 0);
              return () => self.timeout(request, idleS);
            },
          });
          if (self !== listeners[0]) response.headers.set("connection", "close");
          return response;
        },
      },
      (busy, cause) => listenFault(address, "--listen", busy, cause),
    );

  const retire = async (old: Listener): Promise<void> => {
    // Whoever reached its queue but was not accepted yet is reset. At 900 new connections a second that was one in five
    // renewals, and none with net.ipv4.tcp_migrate_req=1, where the kernel hands the queue to the other listener.
    await old.stop();
    listeners = listeners.filter((listener) => listener !== old);
  };

  // a port that is shared would not refuse another Atlas: take it alone first
  if (certificate !== undefined) void listen(address.port, undefined).stop(true);
  const first = listen(address.port, certificate);
  listeners = [first];
  const { port = address.port } = first;

  return {
    url: `${certificate === undefined ? "http" : "https"}://${formatHost(address.host)}:${port}`,
    renew(next) {
      const old = listeners[0];
      listeners = [listen(port, next), ...listeners];
      const timer = setTimeout(() => {
        handOvers.delete(timer);
        if (old !== undefined) void retire(old);
      }, HAND_OVER_MS);
      handOvers.add(timer);
    },
    async stop() {
      for (const timer of handOvers) clearTimeout(timer);
      const all = listeners;
      // not awaited: it would also wait for connections that are idle
      for (const listener of all) void listener.stop();
      const deadline = performance.now() + STOP_MS;
      const busy = (): boolean => all.some(({ pendingRequests }) => pendingRequests > 0);
      while (busy() && performance.now() < deadline) await Bun.sleep(5);
      await Promise.all(all.map((listener) => listener.stop(true)));
    },
  };
}
