import type { Server } from "bun";
import { Fault } from "../core/lib/errors.ts";
import { listenTcp } from "../core/lib/listen.ts";

/** Answers on one port, of one or more addresses. */
export interface Listener {
  readonly port: number;
  readonly addresses: readonly string[];
  /** Also answers there. @throws Fault `address_in_use`, `listen_failed` */
  add(address: string): void;
  /** Takes no more connections, waits for answers under way at most `timeoutMs`, then cuts what is left. */
  stop(timeoutMs: number): Promise<void>;
}

type Answer = (request: Request, server: Server<undefined>) => Response | Promise<Response>;

/** Connections that HAProxy keeps for later must outlive its own patience, or it meets a closed one: the most Bun can. */
const IDLE_SECONDS = 255;

/** @param port 0 for a free one. @throws Fault `address_in_use`, `listen_failed` */
export function listen(address: string, port: number, answer: Answer): Listener {
  const servers: Server<undefined>[] = [open(address, port, answer)];
  const addresses = [address];
  const bound = servers[0]?.port ?? port;
  return {
    port: bound,
    addresses,
    add(another) {
      if (addresses.includes(another)) return;
      servers.push(open(another, bound, answer));
      addresses.push(another);
    },
    async stop(timeoutMs) {
      const ended = Promise.all(servers.map((server) => server.stop(false)));
      let timer: ReturnType<typeof setTimeout> | undefined;
      const patience = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, timeoutMs);
      });
      await Promise.race([ended, patience]);
      clearTimeout(timer);
      await Promise.all(servers.map((server) => server.stop(true)));
    },
  };
}

function open(address: string, port: number, answer: Answer): Server<undefined> {
  return listenTcp(
    // the service's own limit answers with a problem, Bun's with an empty 413
    { host: address, port, idleS: IDLE_SECONDS, maxBodyBytes: Number.MAX_SAFE_INTEGER, fetch: answer },
    (busy, cause) =>
      busy
        ? new Fault({
            code: "address_in_use",
            message: `port ${port} of ${address} is in use`,
            hint: "Another instance? --port N takes another port, --port 0 a free one.",
          })
        : new Fault({
            code: "listen_failed",
            message: `cannot listen on port ${port} of ${address}`,
            hint: "Is that an address of this machine, and the port one this user may use?",
            cause,
          }),
  );
}
