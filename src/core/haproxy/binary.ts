// Which HAProxy is used, and what it and this machine can do.
import { accessSync, constants } from "node:fs";
import { availableParallelism } from "node:os";
import { describeError, Fault } from "../lib/errors.ts";

export type Binary = { readonly path: string; readonly version: string; readonly prometheus: boolean };

/** The oldest HAProxy whose runtime API can add and delete servers without an experimental mode: 2.6. */
const OLDEST = [2, 6] as const;
const INSTALL = "Install HAProxy 2.6 or newer (on Debian: apt-get install haproxy), or say where it is with --haproxy.";

/**
 * Finds HAProxy: the given path, else PATH, else the places where distributions put it.
 * @throws Fault `haproxy_missing`, `haproxy_old`
 */
export async function findBinary(given?: string): Promise<Binary> {
  const path = given ?? locate();
  if (path === undefined) {
    throw new Fault({ code: "haproxy_missing", message: "there is no haproxy on this machine", hint: INSTALL });
  }
  let text: string;
  try {
    const child = Bun.spawn([path, "-vv"], { stdin: "ignore", stdout: "pipe", stderr: "ignore" });
    text = await new Response(child.stdout).text();
    await child.exited;
  } catch (cause) {
    throw new Fault({
      code: "haproxy_missing",
      message: `${path} cannot be run: ${describeError(cause)}`,
      hint: INSTALL,
      cause,
    });
  }
  const version = /^HA-?Proxy version (\S+)/m.exec(text)?.[1];
  if (version === undefined) {
    throw new Fault({ code: "haproxy_missing", message: `${path} does not look like HAProxy`, hint: INSTALL });
  }
  const [major = 0, minor = 0] = version.split(".").map((part) => Number.parseInt(part, 10));
  if (major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1])) {
    throw new Fault({ code: "haproxy_old", message: `${path} is HAProxy ${version}`, hint: INSTALL });
  }
  return { path, version, prometheus: /prometheus-exporter/.test(text) };
}

function locate(): string | undefined {
  const found = Bun.which("haproxy");
  if (found !== null) return found;
  return ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/sbin/haproxy", "/opt/homebrew/bin/haproxy"].find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch (error) {
      if (error instanceof Error) return false;
      throw error;
    }
  });
}

const MOST_CONNECTIONS = 20_000;
const LEAST_CONNECTIONS = 32;

/**
 * How many connections HAProxy may hold under a limit of open files. Two files each; a fifth of the limit stays free for
 * health checks, idle connections to instances, and itself. Above its limit HAProxy would not start.
 */
export function maxconnOf(openFiles: number): number {
  return Math.min(MOST_CONNECTIONS, Math.max(LEAST_CONNECTIONS, Math.floor((openFiles * 0.8) / 2)));
}

/** The hard limit of open files; HAProxy raises its soft limit to it. */
export function openFilesLimit(): number {
  // by its path: a service manager may give no PATH
  const answer = Bun.spawnSync(["/bin/sh", "-c", "ulimit -Hn"]).stdout.toString().trim();
  const limit = Number(answer);
  return answer === "unlimited" || !Number.isInteger(limit) ? 1_048_576 : limit;
}

/** One thread serves about 40,000 requests a second: a host's router needs few, and leaves the machine to the services. */
export function threadsOf(processors: number = availableParallelism()): number {
  return Math.max(1, Math.min(processors, 4));
}
