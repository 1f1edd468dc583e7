// What the end-to-end tests of core/haproxy share: little instances, desired states, and a client that hides nothing.
import { readFileSync } from "node:fs";
import { createConnection, type Socket } from "node:net";
import { createProxy, type Desired, type Proxy, type ProxyOptions } from "../core/haproxy/proxy.ts";
import { silentLogger } from "../core/lib/logger.ts";
import { type Instance, registrationFromPut } from "../core/model/instance.ts";
import { type Definition, type DefinitionInput, definitionSchema } from "../core/model/service.ts";
import type { World } from "./harness.ts";

export type Backend = {
  readonly name: string;
  readonly port: number;
  /** Requests it got, health checks not counted. */
  readonly requests: () => number;
  /** How it answers from now on. */
  answer(handler: (request: Request) => Response | Promise<Response>): void;
  health(status: number): void;
  stop(): void;
};

/** A server that says its name. */
export function backend(world: World, name: string): Backend {
  let requests = 0;
  let health = 200;
  let handler: (request: Request) => Response | Promise<Response> = (request) =>
    Response.json(
      { name, headers: Object.fromEntries(request.headers) },
      { headers: { "smartstack-reply": "forged" } },
    );
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 60,
    fetch(request) {
      if (request.url.endsWith("/healthcheck")) return new Response("", { status: health });
      requests += 1;
      return handler(request);
    },
  });
  const stop = (): void => void server.stop(true);
  world.defer(stop);
  return {
    name,
    port: server.port ?? 0,
    requests: () => requests,
    answer: (next) => {
      handler = next;
    },
    health: (status) => {
      health = status;
    },
    stop,
  };
}

export function instance(service: string, name: string, port: number, more: Partial<Instance> = {}): Instance {
  return { ...registrationFromPut(service, name, { port, address: "127.0.0.1" }), enabled: true, ...more };
}

export function desired(
  services: Readonly<Record<string, DefinitionInput>>,
  instances: readonly Instance[],
  agents = 1,
): Desired {
  const definitions: Record<string, Definition> = {};
  for (const [name, definition] of Object.entries(services)) definitions[name] = definitionSchema.parse(definition);
  return { services: definitions, instances, agents };
}

export type Router = { readonly proxy: Proxy; readonly port: number; readonly options: ProxyOptions };

/** A proxy in the scenario's directory, ended with it. */
export async function router(world: World, more: Partial<ProxyOptions> = {}): Promise<Router> {
  const port = more.bind === undefined ? await world.port() : Number(more.bind.split(":")[1]);
  const options: ProxyOptions = {
    directory: `${world.directory}/haproxy`,
    bind: `127.0.0.1:${port}`,
    logger: silentLogger,
    ...more,
  };
  const proxy = createProxy(options);
  world.defer(() => proxy.stop("end"));
  return { proxy, port, options };
}

export type Answer = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
};

/** One connection to the router that is kept alive, and never repeats a request by itself, as fetch would. */
export class Connection {
  readonly #port: number;
  #socket: Socket | undefined;
  #text = "";
  #wake: () => void = () => undefined;
  #closed = false;

  constructor(port: number) {
    this.#port = port;
  }

  /** @throws when the connection breaks before the answer is complete: that request is lost */
  async send(headers: Readonly<Record<string, string>>, path = "/", method = "GET"): Promise<Answer> {
    const socket = this.#socket ?? (await this.#open());
    const lines = Object.entries({ host: "localhost", ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
    socket.write(`${method} ${path} HTTP/1.1\r\n${lines.join("")}\r\n`);
    for (;;) {
      const answer = this.#parse();
      if (answer !== undefined) {
        if (answer.headers["connection"] === "close") this.close();
        return answer;
      }
      if (this.#closed) {
        this.close();
        throw new Error(`connection closed after ${JSON.stringify(this.#text.slice(0, 80))}`);
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  close(): void {
    this.#socket?.destroy();
    this.#socket = undefined;
    this.#text = "";
  }

  get open(): boolean {
    return this.#socket !== undefined && !this.#closed;
  }

  #open(): Promise<Socket> {
    this.#closed = false;
    this.#text = "";
    return new Promise((resolve, reject) => {
      const socket = createConnection({ port: this.#port, host: "127.0.0.1", noDelay: true });
      socket.on("connect", () => {
        this.#socket = socket;
        resolve(socket);
      });
      socket.on("error", reject);
      socket.on("data", (chunk) => {
        this.#text += chunk.toString("latin1");
        this.#wake();
      });
      socket.on("close", () => {
        if (this.#socket === socket) this.#closed = true;
        this.#wake();
      });
    });
  }

  #parse(): Answer | undefined {
    const end = this.#text.indexOf("\r\n\r\n");
    if (end < 0) return undefined;
    const [first = "", ...rest] = this.#text.slice(0, end).split("\r\n");
    const headers = Object.fromEntries(
      rest.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]),
    );
    const length = Number(headers["content-length"] ?? 0);
    if (this.#text.length < end + 4 + length) return undefined;
    const body = this.#text.slice(end + 4, end + 4 + length);
    this.#text = this.#text.slice(end + 4 + length);
    return { status: Number(first.split(" ")[1]), headers, body };
  }
}

/** One request on a connection of its own. */
export async function send(
  port: number,
  headers: Readonly<Record<string, string>>,
  path = "/",
  method = "GET",
): Promise<Answer> {
  const connection = new Connection(port);
  try {
    return await connection.send({ ...headers, connection: "close" }, path, method);
  } finally {
    connection.close();
  }
}

export type Load = {
  /** Ends it; what failed, each in words, and how many were sent. */
  stop(): Promise<{ readonly sent: number; readonly failures: readonly string[] }>;
};

/** Steady requests on kept-alive connections: half of them busy, half pausing in between, so that some are always idle. */
export function load(port: number, headers: Readonly<Record<string, string>>, connections = 8): Load {
  const ending = new AbortController();
  let sent = 0;
  const failures: string[] = [];
  const client = async (index: number): Promise<void> => {
    const connection = new Connection(port);
    while (!ending.signal.aborted) {
      sent += 1;
      try {
        // a client that was told to close, or sees the end, opens a new connection; one that loses a request says so
        const answer = await connection.send(headers);
        if (answer.status !== 200) failures.push(`${answer.status} ${answer.body}`);
      } catch (error) {
        failures.push(String(error));
      }
      await Bun.sleep(index % 2 === 0 ? 1 : 40);
    }
    connection.close();
  };
  const clients = Array.from({ length: connections }, (_, index) => client(index));
  return {
    async stop() {
      ending.abort();
      await Promise.all(clients);
      return { sent, failures };
    },
  };
}

/** The pid of HAProxy's master for a directory; 0 when none runs. */
export async function masterOf(directory: string): Promise<number> {
  const { stdout } = Bun.spawnSync(["pgrep", "-o", "-f", `${directory}/haproxy.cfg`]);
  return Number(stdout.toString().trim());
}

export async function workerOf(directory: string): Promise<number> {
  const master = await masterOf(directory);
  const children = readFileSync(`/proc/${master}/task/${master}/children`, "utf8").trim().split(" ");
  return Number(children.at(-1));
}
