// A service as its file exports it: a name, defaults, and a function that defines routes. Nothing runs until it is started.
import { Hono } from "hono";
import { routePath } from "hono/route";
import { Fault } from "../lib/errors.ts";
import { SERVICE_NAME } from "../model/names.ts";
import type { App } from "./app.ts";
import type { ConfigOf, Defaults } from "./config.ts";
import { untimed } from "./route.ts";

export type ServiceOptions<D extends Defaults> = {
  /** Schema and defaults of the configuration at once; the keys are also the names of environment variables. */
  readonly defaults?: D;
  /** Of the service itself; it stands in metrics, OpenAPI and Atlas. @default "" */
  readonly version?: string;
  readonly description?: string;
  /** Requests handled at the same time; beyond that a short queue, then 503. @default 256 */
  readonly maxInFlight?: number;
  /** For a request, in ms; the caller's own timeout may be shorter. @default 30_000 */
  readonly timeoutMs?: number;
  /** Of a request's body. @default 10 MiB */
  readonly maxBodyBytes?: number;
};

/** Made by `smartService`; started by `smartstack serve` or `testService`. */
export class SmartService<D extends Defaults = Defaults> {
  readonly name: string;
  readonly defaults: D;
  readonly version: string;
  readonly description: string;
  readonly maxInFlight: number;
  readonly timeoutMs: number;
  readonly maxBodyBytes: number;
  readonly define: (app: App<ConfigOf<D>>) => Promise<void> | void;

  constructor(name: string, options: ServiceOptions<D>, define: SmartService<D>["define"]) {
    this.name = name;
    this.defaults = options.defaults ?? ({} as D);
    this.version = options.version ?? "";
    this.description = options.description ?? "";
    this.maxInFlight = options.maxInFlight ?? 256;
    this.timeoutMs = options.timeoutMs ?? 30_000;
    this.maxBodyBytes = options.maxBodyBytes ?? 10 * 1024 * 1024;
    this.define = define;
  }
}

/**
 * Declares a service: `export default smartService("identity", { defaults }, (app) => { app.get("/teams", …) })`.
 * @param define called once per start, with configuration, logger and smart client in `app`; may be async
 * @throws RangeError when the name is no service name
 */
export function smartService<const D extends Defaults>(
  name: string,
  options: ServiceOptions<D>,
  define: (app: App<ConfigOf<D>>) => Promise<void> | void,
): SmartService<D> {
  if (!SERVICE_NAME.test(name))
    throw new RangeError(`"${name}" is no service name: 1 to 63 of a–z, 0–9 and '-', beginning with a letter`);
  return new SmartService(name, options, define);
}

type FetchHandler = (request: Request, environment: unknown) => Response | Promise<Response>;

/**
 * Whatever a service file exports by default, as a smart service: itself, a hono app, an object with `fetch`, or a function
 * from Request to Response. The last three get everything but typed routes.
 * @param name for the ones that have none of their own
 * @throws Fault `wrong_export` that says what it is and what it should be
 */
export function asSmartService(exported: unknown, name: string): SmartService {
  if (exported instanceof SmartService) return exported as SmartService;
  if (exported instanceof Hono) {
    return new SmartService(name, {}, ({ hono }) => {
      hono.use("*", async (c, next) => {
        await next();
        c.env.route = routePath(c, -1);
        untimed(c.res, c.env);
      });
      hono.route("/", exported);
    });
  }
  const handler = fetchHandlerOf(exported);
  if (handler !== undefined) {
    return new SmartService(name, {}, ({ hono }) => {
      hono.all("*", async (c) => {
        c.env.route = "*";
        return untimed(await handler(c.req.raw, c.env), c.env);
      });
    });
  }
  throw new Fault({
    code: "wrong_export",
    message: `its default export is ${describeValue(exported)}`,
    hint: 'Export a service: export default smartService("NAME", { defaults }, (app) => { … }); a hono app or a fetch handler will do, too.',
  });
}

function fetchHandlerOf(exported: unknown): FetchHandler | undefined {
  if (typeof exported === "function" && !/^class\s/.test(Function.prototype.toString.call(exported)))
    return exported as FetchHandler;
  if (typeof exported !== "object" || exported === null || !("fetch" in exported)) return undefined;
  const { fetch } = exported;
  return typeof fetch === "function" ? (request, environment) => fetch.call(exported, request, environment) : undefined;
}

function describeValue(value: unknown): string {
  if (value === undefined) return "missing";
  if (value === null) return "null";
  if (typeof value === "function") return "a class";
  return typeof value === "object" ? "an object without a fetch function" : `a ${typeof value}`;
}
