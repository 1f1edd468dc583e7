// Telling Atlas what this host runs: at once when somebody waits, else at most once a second, and at least every ten, since
// the acks are also what keeps the lease alive.
import type { AtlasClient } from "../core/api/atlas-client.ts";
import { fullJitter } from "../core/lib/backoff.ts";
import type { Cancel, Clock } from "../core/lib/clock.ts";
import { describeError } from "../core/lib/errors.ts";
import type { Logger } from "../core/lib/logger.ts";
import type { Ack } from "../core/model/agent.ts";
import { z } from "zod";

/** Least distance between two acks nobody waits for, in ms. */
const CALM_MS = 1_000;
/** Longest silence, in ms; Atlas takes an agent for dead after 30 s. */
const KEEPALIVE_MS = 10_000;
const RETRY = { baseMs: 200, capMs: 5_000 };

export type AckOptions = {
  readonly host: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random?: () => number;
  /** The replica whose watch this agent follows, or undefined: acks belong there and nowhere else. */
  readonly replica: () => AtlasClient | undefined;
};

export interface Acks {
  /** What HAProxy runs now, read back. `urgent`: somebody waits for it. */
  applied(ack: Ack, urgent: boolean): void;
  /** The agent follows a replica (again): it must hear where we are. */
  connected(): void;
  stop(): void;
}

export function createAcks({ host, clock, logger, random = Math.random, replica }: AckOptions): Acks {
  let latest: Ack | undefined;
  let sending = false;
  let wanted = false;
  let failures = 0;
  let sentAt = Number.NEGATIVE_INFINITY;
  let timer: Cancel | undefined;
  let stopped = false;

  const plan = (ms: number): void => {
    timer?.();
    timer = stopped ? undefined : clock.after(Math.max(0, ms), () => void send());
  };

  const send = async (): Promise<void> => {
    timer?.();
    timer = undefined;
    wanted = true;
    if (sending) return;
    sending = true;
    try {
      while (wanted) {
        wanted = false;
        await sendOnce();
      }
    } finally {
      sending = false;
    }
  };

  const sendOnce = async (): Promise<void> => {
    const client = replica();
    const ack = latest;
    if (stopped || client === undefined || ack === undefined) return;
    try {
      await client.request(`/v1/agents/${encodeURIComponent(host)}/acks`, {
        method: "POST",
        body: ack,
        schema: z.unknown(),
        timeoutMs: 5_000,
      });
      failures = 0;
      sentAt = clock.now();
      // what was applied meanwhile may have planned to be told sooner
      if (!wanted) plan(latest === ack ? KEEPALIVE_MS : CALM_MS);
    } catch (error) {
      logger.debug(`an ack did not reach Atlas: ${describeError(error)}`);
      if (!wanted) plan(fullJitter(failures, { ...RETRY, random }));
      failures += 1;
    }
  };

  return {
    applied(ack, urgent) {
      latest = ack;
      if (urgent || clock.now() - sentAt >= CALM_MS) void send();
      else plan(sentAt + CALM_MS - clock.now());
    },
    connected() {
      failures = 0;
      void send();
    },
    stop() {
      stopped = true;
      timer?.();
    },
  };
}
