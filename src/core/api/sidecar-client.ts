// Talking to this host's sidecar: over its unix socket, where writes are allowed, or read-only over its admin port.
import type { z } from "zod";
import { Fault } from "../lib/errors.ts";
import {
  type LocalWritten,
  localWrittenSchema,
  type PutLocal,
  type SidecarInfo,
  sidecarInfoSchema,
  type Why,
  whySchema,
} from "../model/local.ts";
import { type Snapshot, snapshotSchema } from "../model/snapshot.ts";
import { ApiProblem, describeFailure, readAnswer } from "./exchange.ts";

/** The sidecar answered with a problem; `code` is the problem's own. */
export class SidecarProblem extends ApiProblem {
  constructor(status: number, body: Readonly<Record<string, unknown>>, request: string) {
    super("the sidecar", status, body, request);
  }
}

/** Where the sidecar is: the path of its socket, or the URL of its admin port. */
export type SidecarAddress = { readonly socket: string } | { readonly url: string };

/** Every call throws Fault `unreachable` when no sidecar is there, and SidecarProblem when it refuses. */
export interface SidecarClient {
  info(): Promise<SidecarInfo>;
  /** Registers an instance of this host, or repeats that it lives. */
  put(service: string, instance: string, put: Partial<PutLocal> & Pick<PutLocal, "port">): Promise<LocalWritten>;
  /**
   * Says that an instance is leaving, and waits up to `timeoutMs` until every agent's HAProxy has taken it out.
   * @throws SidecarProblem `not_applied` when that takes longer; it is draining all the same
   */
  drain(service: string, instance: string, timeoutMs: number): Promise<LocalWritten>;
  /** Ends the registration of an instance, draining first (up to 10 s) if that was not done. */
  deregister(service: string, instance: string): Promise<LocalWritten>;
  why(service: string): Promise<Why>;
  /** The registry as this host believes it, held instances included. */
  snapshot(): Promise<Snapshot>;
}

/** A drain may take its time, and a deregistration drains; everything else is local, in ms. */
const ANSWER_MS = 5_000;
const DEREGISTER_MS = 20_000;

type Exchange = {
  readonly method: "GET" | "PUT" | "PATCH" | "DELETE";
  readonly body?: unknown;
  readonly timeoutMs?: number;
};

export function createSidecarClient(address: SidecarAddress): SidecarClient {
  const where = "socket" in address ? address.socket : address.url;
  const base = "socket" in address ? "http://localhost" : address.url;

  const send = async (path: string, { method, body, timeoutMs = ANSWER_MS }: Exchange): Promise<Response> => {
    try {
      return await fetch(new URL(path, base), {
        method,
        headers: { accept: "application/json", ...(body === undefined ? {} : { "content-type": "application/json" }) },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        ...("socket" in address ? { unix: address.socket } : {}),
        // a sidecar that was restarted must not be looked for on the connection of its predecessor
        keepalive: false,
        signal: AbortSignal.timeout(timeoutMs),
        redirect: "manual",
      });
    } catch (error) {
      throw new Fault({
        code: "unreachable",
        message: `could not reach the sidecar at ${where}: ${describeFailure(error)}`,
        hint: "Start it with `smartstack sidecar` (or all of it with `smartstack dev`), or say where it is.",
      });
    }
  };

  const ask = async <T>(path: string, schema: z.ZodType<T>, exchange: Exchange = { method: "GET" }): Promise<T> => {
    const response = await send(path, exchange);
    return readAnswer(response, schema, `${exchange.method} ${path}`, (...refusal) => new SidecarProblem(...refusal));
  };

  const pathOf = (service: string, instance: string): string => `/v1/local/${service}/${encodeURIComponent(instance)}`;

  return {
    info: () => ask("/v1/info", sidecarInfoSchema),
    put: (service, instance, put) => ask(pathOf(service, instance), localWrittenSchema, { method: "PUT", body: put }),
    drain: (service, instance, timeoutMs) =>
      ask(`${pathOf(service, instance)}?wait=applied&timeout=${Math.round(timeoutMs)}ms`, localWrittenSchema, {
        method: "PATCH",
        body: { draining: true },
        timeoutMs: timeoutMs + ANSWER_MS,
      }),
    deregister: (service, instance) =>
      ask(pathOf(service, instance), localWrittenSchema, { method: "DELETE", timeoutMs: DEREGISTER_MS }),
    why: (service) => ask(`/v1/why/${service}`, whySchema),
    snapshot: () => ask("/v1/snapshot", snapshotSchema),
  };
}
