// Following Atlas: one stream that always ends up on a living replica and always tells the truth about its position. The
// reader sees whole snapshots in order; gaps, stuck streams, stale replicas and foreign realms are dealt with here.
import { z } from "zod";
import type { Clock } from "../lib/clock.ts";
import { fullJitter } from "../lib/backoff.ts";
import { Fault } from "../lib/errors.ts";
import type { Logger } from "../lib/logger.ts";
import type { SseEvent } from "../lib/sse.ts";
import { comparePositions, formatPosition } from "../model/position.ts";
import {
  applyDelta,
  type Delta,
  deltaSchema,
  type Heartbeat,
  heartbeatSchema,
  type SettingsEvent,
  settingsEventSchema,
  type Snapshot,
  snapshotSchema,
} from "../model/snapshot.ts";
import { type AtlasClient, type AtlasClientOptions, createAtlasClient, isRefusedAccess } from "./atlas-client.ts";
import { followEvents, parseEvent } from "./event-stream.ts";
import { describeFailure } from "./exchange.ts";

/** Twice Atlas's heartbeat of 5 s: a stream that is silent for so long, in ms, is dead, whatever TCP says. */
export const SILENCE_MS = 10_000;
/** Longest wait between two rounds over all replicas, in ms. */
const RECONNECT_CAP_MS = 5_000;
const RECONNECT_BASE_MS = 500;
/** Longest wait, in ms, once every replica has refused our token: a person has to do something first. */
const REFUSED_CAP_MS = 15_000;
/**
 * For how long, in ms, a state older than ours is taken for a replica that lags. Replicas catch up within seconds; when
 * everything Atlas offers stays older, the registry itself went back, and refusing it for ever would leave the host deaf.
 */
export const STALE_PATIENCE_MS = 5_000;

/** Who holds the lease of a host through this stream. */
type WatchAgent = {
  readonly host: string;
  readonly boot: string;
  readonly zone: string;
  readonly version: string;
};

export type WatchOptions = AtlasClientOptions & {
  /** A snapshot of another realm is refused. */
  readonly realm: string;
  /** Only these services; all when left out. */
  readonly services?: readonly string[] | undefined;
  /** Also the settings of these services. */
  readonly settings?: readonly string[] | undefined;
  readonly agent?: WatchAgent | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Returns a number in [0, 1). @default Math.random */
  readonly random?: () => number;
};

export type WatchStatus =
  | { readonly kind: "connecting" }
  /** `client` talks to that replica alone: acks belong there. */
  | { readonly kind: "connected"; readonly url: string; readonly client: AtlasClient }
  /** Not connected; the failure of the last attempt. */
  | { readonly kind: "waiting"; readonly failure: Fault };

/** What the stream tells. Listeners run in order and must not wait. */
export type WatchListener = {
  /** The state now. `delta` is the change that led to it; undefined: a snapshot, nothing can be concluded from what is missing. */
  onState(snapshot: Snapshot, delta: Delta | undefined): void;
  onHeartbeat?(heartbeat: Heartbeat): void;
  onSettings?(settings: SettingsEvent): void;
  onStatus?(status: WatchStatus): void;
};

export interface Watch {
  readonly status: WatchStatus;
  /** Ends the wait for the next attempt: what was refused may be taken now. */
  retry(): void;
  /** Ends the stream and every timer. */
  stop(): Promise<void>;
}

/**
 * Follows `/v1/watch` for ever: starts at a random replica, moves to the next one when a stream ends, is silent for
 * SILENCE_MS or is refused, and waits (full jitter, at most 5 s) between rounds over all of them.
 */
export function watchAtlas(options: WatchOptions, listener: WatchListener): Watch {
  const { clock, logger, random = Math.random } = options;
  const clients = options.urls.map((url) => ({ url, client: createAtlasClient({ ...options, urls: [url] }) }));
  const path = watchPath(options);
  const ending = new AbortController();
  let status: WatchStatus = { kind: "connecting" };
  let current: Snapshot | undefined;
  let staleSince: number | undefined;
  let resync = false;
  let waking = new AbortController();

  // what was already logged since the last connection: with several replicas down, their messages take turns
  const logged = new Set<string>();
  const become = (next: WatchStatus): void => {
    if (next.kind === "connected") {
      logged.clear();
      logger.info({ url: next.url }, "following Atlas");
    }
    if (next.kind === "waiting" && !logged.has(next.failure.message)) {
      logged.add(next.failure.message);
      logger.warn({ code: next.failure.code, hint: next.failure.hint }, `not following Atlas: ${next.failure.message}`);
    }
    status = next;
    listener.onStatus?.(next);
  };

  const take = (event: SseEvent): void => {
    switch (event.event) {
      case "snapshot":
        takeSnapshot(parseEvent(event, snapshotSchema, "Atlas"));
        return;
      case "delta":
        takeDelta(parseEvent(event, deltaSchema, "Atlas"));
        return;
      case "settings":
        listener.onSettings?.(parseEvent(event, settingsEventSchema, "Atlas"));
        return;
      case "heartbeat":
        listener.onHeartbeat?.(parseEvent(event, heartbeatSchema, "Atlas"));
        return;
      case "end":
        throw new Fault({
          code: "unreachable",
          message: `Atlas ended the stream: ${parseEvent(event, endSchema, "Atlas").reason}`,
        });
      default:
        // a newer Atlas may say more than we know
        return;
    }
  };

  const takeSnapshot = (snapshot: Snapshot): void => {
    if (snapshot.realm !== options.realm) {
      throw new Fault({
        code: "wrong_realm",
        message: `Atlas belongs to the realm ${snapshot.realm}, not ${options.realm}; its snapshot was refused`,
        hint: "Check --atlas and --realm.",
      });
    }
    if (current !== undefined && comparePositions(snapshot, current) < 0) {
      staleSince ??= clock.now();
      const offered = `${formatPosition(snapshot)} after ${formatPosition(current)}`;
      if (clock.now() - staleSince < STALE_PATIENCE_MS) {
        throw new Fault({ code: "stale", message: `Atlas offered an older state: ${offered}` });
      }
      logger.error(`Atlas went back and stays there: ${offered}; following it`);
    }
    staleSince = undefined;
    resync = false;
    current = snapshot;
    listener.onState(snapshot, undefined);
  };

  const takeDelta = (delta: Delta): void => {
    const next = current === undefined ? undefined : applyDelta(current, delta);
    if (next === undefined) {
      resync = true;
      throw new Fault({
        code: "gap",
        message: `a change from ${delta.generation}.${delta.since} does not follow ${current === undefined ? "nothing" : formatPosition(current)}; asking for a snapshot`,
      });
    }
    staleSince = undefined;
    current = next;
    listener.onState(next, delta);
  };

  /** One stream, to its end. @returns never by itself: it throws why it ended; `events` counts what came */
  const follow = (url: string, client: AtlasClient, onEvent: () => void): Promise<never> => {
    const from = current !== undefined && !resync ? { "last-event-id": formatPosition(current) } : {};
    let first = true;
    return followEvents({
      client,
      url,
      path,
      headers: from,
      silenceMs: SILENCE_MS,
      clock,
      signal: ending.signal,
      take(event) {
        take(event);
        // a replica that begins with something unusable was never followed
        if (first) become({ kind: "connected", url, client });
        first = false;
        onEvent();
      },
    });
  };

  const run = async (): Promise<void> => {
    let turn = Math.floor(random() * clients.length);
    let failures = 0;
    let refusals = 0;
    while (!ending.signal.aborted) {
      const { url, client } = clients[turn % clients.length] ?? failNoUrls();
      try {
        await follow(url, client, () => {
          failures = 0;
        });
      } catch (error) {
        if (ending.signal.aborted) return;
        refusals = isRefusedAccess(error) ? refusals + 1 : 0;
        become({ kind: "waiting", failure: faultOf(error, url) });
      }
      // after a gap the same replica has the snapshot that is missing
      if (!resync) turn += 1;
      const round = Math.floor(failures / clients.length);
      failures += 1;
      const pauseMs =
        refusals >= clients.length
          ? fullJitter(0, { baseMs: REFUSED_CAP_MS, capMs: REFUSED_CAP_MS, random })
          : fullJitter(round, { baseMs: RECONNECT_BASE_MS, capMs: RECONNECT_CAP_MS, random });
      await clock.sleep(pauseMs, AbortSignal.any([ending.signal, waking.signal])).catch(ignoreAbort);
    }
  };

  const running = run();
  return {
    get status() {
      return status;
    },
    retry() {
      waking.abort(new DOMException("try again", "AbortError"));
      waking = new AbortController();
    },
    async stop() {
      ending.abort(new DOMException("stopped", "AbortError"));
      await running;
    },
  };
}

/** The last event of a replica that ends a stream on purpose. */
const endSchema = z.object({ reason: z.string().default("it did not say why") });

function watchPath({ services, settings, agent }: WatchOptions): string {
  const query = new URLSearchParams();
  if (services !== undefined) query.set("service", services.join(","));
  if (settings !== undefined) query.set("settings", settings.join(","));
  for (const [key, value] of Object.entries(agent === undefined ? {} : { ...agent, agent: agent.host })) {
    if (key !== "host") query.set(key, value);
  }
  return query.size === 0 ? "/v1/watch" : `/v1/watch?${query.toString()}`;
}

function faultOf(error: unknown, url: string): Fault {
  return error instanceof Fault
    ? error
    : new Fault({ code: "unreachable", message: `${url}: ${describeFailure(error)}`, cause: error });
}

function failNoUrls(): never {
  throw new Fault({ code: "config", message: "no address of Atlas was given" });
}

function ignoreAbort(): void {
  // the end of a wait is no failure
}
