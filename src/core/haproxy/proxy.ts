// The seam between the sidecar, which knows what should be, and HAProxy, which is made so. Everything else in this folder
// is behind it.
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/logger.ts";
import type { Rejection } from "../model/agent.ts";
import type { Instance } from "../model/instance.ts";
import type { Definition } from "../model/service.ts";
import type { AccessRecord } from "./access-log.ts";

export type { AccessRecord } from "./access-log.ts";
export { createProxy } from "./apply.ts";

/** What `createProxy` needs; everything else it finds out from the machine. */
export type ProxyOptions = {
  /** An absolute path: where HAProxy's files, sockets and pipe lie. Made when missing; the next sidecar finds HAProxy by it. */
  readonly directory: string;
  /** `ADDRESS:PORT` that requests come to. */
  readonly bind: string;
  /** Path of the binary. @default the one on PATH, else where distributions put it */
  readonly haproxy?: string | undefined;
  /** The request header that names the service. @default "Runscope-Service" */
  readonly header?: string | undefined;
  /** @default from the limit of open files */
  readonly maxconn?: number | undefined;
  /** @default one for each processor, at most four */
  readonly threads?: number | undefined;
  readonly logger: Logger;
  /** @default the system's */
  readonly clock?: Clock | undefined;
  /** Called for every finished request. */
  readonly onAccess?: ((record: AccessRecord) => void) | undefined;
};

/** What the host's HAProxy should route: the snapshot after the sidecar's self-preservation had its say. */
export type Desired = {
  readonly services: Readonly<Record<string, Definition>>;
  readonly instances: readonly Instance[];
  /** How many agents the realm has: checks of remote instances get rarer with it. */
  readonly agents: number;
};

/** What became of a `Desired`, after HAProxy was read back. */
export type Applied = {
  /** Services whose definition HAProxy refused: they stay in their last good form. And instances that were left out. */
  readonly rejected: readonly Rejection[];
  readonly reloaded: boolean;
  /** Why it was reloaded, one line each; empty when it was not. */
  readonly reasons: readonly string[];
};

/** One server as the running HAProxy sees it. */
export type ServerStatus = {
  readonly service: string;
  readonly instance: string;
  readonly address: string;
  readonly port: number;
  /** HAProxy's word: `UP`, `DOWN`, `DRAIN`, `MAINT`, … */
  readonly status: string;
  /** The last check in words: `check 200, 3 ms`. Empty when HAProxy does not check it. */
  readonly check: string;
  readonly weight: number;
};

export interface Proxy {
  /**
   * Adopts the HAProxy that already runs for this state directory, else starts one, then makes it run `desired`.
   * @throws Fault `haproxy_missing`, `haproxy_old`, `address_in_use`, `haproxy_failed` with what to do
   */
  start(desired: Desired): Promise<Applied>;
  /** Makes HAProxy run `desired`. Calls queue up; each resolves when its own state, or a later one, was read back. */
  apply(desired: Desired): Promise<Applied>;
  /** Whether HAProxy runs at this moment. One that died is started again. */
  readonly alive: boolean;
  /** What runs, read now: of one service, or of all. */
  servers(service?: string): Promise<readonly ServerStatus[]>;
  /** HAProxy's own statistics in the Prometheus text format. */
  metrics(): Promise<string>;
  /** `keep` leaves HAProxy running for the next sidecar; `end` stops it, idle or not. */
  stop(traffic: "keep" | "end"): Promise<void>;
}
