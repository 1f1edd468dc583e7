// Events on node:diagnostics_channel, so that tracers and loggers can listen without touching the code that calls.
import { channel } from "node:diagnostics_channel";
import type { Call } from "./call.ts";
import type { Attempt, SmartClientError } from "./error.ts";
import { notify } from "./hooks.ts";

/** Names of the channels. */
export const CHANNELS = { attempt: "smartstack.client.attempt", call: "smartstack.client.call" } as const;

/** What subscribers of `smartstack.client.attempt` get, once an attempt is over. */
export type AttemptEvent = {
  readonly service: string;
  readonly method: string;
  readonly url: string;
  readonly attempt: Attempt;
};

/** What subscribers of `smartstack.client.call` get, once a call is over. */
export type CallEvent = {
  readonly service: string;
  readonly method: string;
  readonly url: string;
  readonly attempts: readonly Attempt[];
  /** Waits included, in ms. */
  readonly tookMs: number;
  readonly error?: SmartClientError;
};

const attemptChannel = channel(CHANNELS.attempt);
const callChannel = channel(CHANNELS.call);

/** Somebody listens to how this call goes. */
export function isWatched(call: Call): boolean {
  return call.settings.hooks.done !== undefined || callChannel.hasSubscribers || attemptChannel.hasSubscribers;
}

export function publishAttempt(call: Call, attempt: Attempt): void {
  if (!attemptChannel.hasSubscribers) return;
  const event: AttemptEvent = { ...about(call), attempt };
  attemptChannel.publish(event);
}

/** Tells the `done` hook and the channel that a call is over. */
export function publishCall(
  call: Call,
  attempts: readonly Attempt[],
  now: number,
  error: SmartClientError | undefined,
): void {
  const { done } = call.settings.hooks;
  if (done === undefined && !callChannel.hasSubscribers) return;
  const event: CallEvent = {
    ...about(call),
    attempts,
    tookMs: now - call.startedAt,
    ...(error === undefined ? {} : { error }),
  };
  notify("done", done, event);
  callChannel.publish(event);
}

function about({ target, method }: Call): { service: string; method: string; url: string } {
  return { service: target.service, method, url: target.url };
}
