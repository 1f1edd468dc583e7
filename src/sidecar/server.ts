// The two listening sockets of the sidecar.
import { chmodSync, rmSync } from "node:fs";
import { type Address, formatHost } from "../core/lib/address.ts";
import { Fault } from "../core/lib/errors.ts";
import { listenFault, listenTcp } from "../core/lib/listen.ts";
import type { Handler } from "./admin.ts";

export type Server = {
  /** Where it listens: a URL, or a path. */
  readonly at: string;
  stop(): Promise<void>;
};

/** A local instance says little; a definition is its largest part. */
const MAX_BODY_BYTES = 262_144;
/** Longest pause on a connection of the admin port, in s. */
const IDLE_S = 120;
/** What a unix socket's address can hold, in bytes (108 with the final zero, unix(7)). */
const MAX_SOCKET_PATH = 107;

/** @throws Fault `address_in_use`, `address_refused` */
export function serveTcp(address: Address, handle: Handler): Server {
  const server = listenTcp({ ...address, idleS: IDLE_S, maxBodyBytes: MAX_BODY_BYTES, fetch: handle }, (busy, cause) =>
    listenFault(address, "--admin", busy, cause),
  );
  return { at: `http://${formatHost(address.host)}:${server.port}`, stop: () => server.stop(true) };
}

/**
 * Whoever holds the lock of the state directory owns the path: a socket that lies there is a dead sidecar's.
 * @throws Fault `state_dir`
 */
export function serveSocket(path: string, handle: Handler): Server {
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH) {
    throw new Fault({
      code: "state_dir",
      message: `the path of the socket is too long: ${path}`,
      hint: `A unix socket's path has at most ${MAX_SOCKET_PATH} bytes. Choose a shorter --state-dir.`,
    });
  }
  // nobody may connect between bind and chmod
  const umask = process.umask(0o117);
  try {
    rmSync(path, { force: true });
    const options = {
      unix: path,
      // Bun's types know no limit for unix sockets, Bun has one of 10 s: too short for a drain that waits
      idleTimeout: 0,
      maxRequestBodySize: MAX_BODY_BYTES,
      development: false,
      fetch: handle,
    };
    const server = Bun.serve(options as unknown as Bun.Serve.Options<undefined>);
    chmodSync(path, 0o660);
    return {
      at: path,
      async stop() {
        await server.stop(true);
        rmSync(path, { force: true });
      },
    };
  } catch (error) {
    throw new Fault({
      code: "state_dir",
      message: `cannot listen on the socket ${path}`,
      hint: "Is its directory writable for this user, and on a file system that can hold sockets?",
      cause: error,
    });
  } finally {
    process.umask(umask);
  }
}
