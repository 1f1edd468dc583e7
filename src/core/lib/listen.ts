// Listening on a TCP port, the same for Atlas, the sidecar and every service.
import { type Address, formatAddress } from "./address.ts";
import { errorCode, Fault } from "./errors.ts";

type Server = Bun.Server<undefined>;

export type ListenOptions = Address & {
  /** Longest pause on a connection, in s; Bun knows at most 255. */
  readonly idleS: number;
  /** Larger bodies are cut off by Bun, with an empty 413. */
  readonly maxBodyBytes: number;
  /** PEM texts; without them, plain HTTP. TLS 1.2 at least: Bun has nothing older. */
  readonly tls?: { readonly cert: string; readonly key: string } | undefined;
  /**
   * Lets another listener of this process have the same port at the same time, and with it any process of the same user. The
   * kernel shares connections out among them. @default false
   */
  readonly shared?: boolean;
  readonly fetch: (request: Request, server: Server) => Response | Promise<Response>;
};

/**
 * @param fault what to throw when the port is taken (`busy`), or cannot be listened on for another reason
 * @throws what `fault` makes
 */
export function listenTcp(options: ListenOptions, fault: (busy: boolean, cause: unknown) => Fault): Server {
  try {
    return Bun.serve({
      hostname: options.host,
      port: options.port,
      idleTimeout: options.idleS,
      maxRequestBodySize: options.maxBodyBytes,
      development: false,
      // said always: without it, development: false lets a second process listen on the same port, and each gets half the
      // connections
      reusePort: options.shared ?? false,
      ...(options.tls === undefined ? {} : { tls: { ...options.tls } }),
      fetch: options.fetch,
    });
  } catch (error) {
    throw fault(errorCode(error) === "EADDRINUSE", error);
  }
}

/**
 * What a program says that cannot listen: `address_in_use` or `address_refused`.
 * @param flag which sets another address: `--listen`
 * @param busy another program has the port
 */
export function listenFault(address: Address, flag: string, busy: boolean, cause: unknown): Fault {
  const shown = formatAddress(address);
  if (busy) {
    return new Fault({
      code: "address_in_use",
      message: `cannot listen on ${shown}: another program does`,
      hint: `Stop it, or choose another address with ${flag}. "ss -ltnp 'sport = :${address.port}'" shows who it is.`,
      cause,
    });
  }
  return new Fault({
    code: "address_refused",
    message: `cannot listen on ${shown}`,
    hint: `Is it an address of this machine, and may this user use the port? Choose another with ${flag}.`,
    cause,
  });
}
