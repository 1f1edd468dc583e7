// One request, from leaving to the end of its body, in a flight that ends in time.
import { describeError } from "../lib/errors.ts";
import type { Answer } from "./answer.ts";
import { attemptHeaders, type Call } from "./call.ts";
import type { Core } from "./core.ts";
import type { Attempt } from "./error.ts";
import { errorOf, type Failure, failureOf, statusFailure } from "./failure.ts";
import { isWatched } from "./events.ts";
import { Flight } from "./flight.ts";
import type { HeaderMap } from "./header.ts";
import { readErrorBody } from "./reading.ts";
import type { Hooks } from "./hooks.ts";
import { followRedirects, isRedirect, needsFreshConnection, send } from "./sending.ts";

export type Result<T> =
  | {
      readonly ok: true;
      readonly attempt: Attempt;
      readonly value: T;
      /** Its body is read; else it still comes. */
      readonly whole: boolean;
    }
  | { readonly ok: false; readonly attempt: Attempt; readonly failure: Failure };

/** Which attempt it is. */
export type Turn = {
  readonly number: number;
  readonly waitedMs: number;
  readonly hedge?: true;
};

/** An attempt under way. */
export type Started<T> = {
  readonly flight: Flight;
  /** Never rejects. */
  readonly result: Promise<Result<T>>;
};

/** Takes off at `now`. The caller holds a place in the service's bulkhead, which is given back when the flight ends. */
export function start<T>(core: Core, call: Call, answer: Answer<T>, turn: Turn, now: number): Started<T> {
  const limitMs = Math.min(call.deadlineAt - now, call.settings.attemptTimeout);
  const at = now + limitMs;
  const onTime = at >= call.deadlineAt ? "call_timeout" : "attempt_timeout";
  const flight = new Flight(core.alarms, at, onTime, call.signal, call.state.compartment.leave);
  return { flight, result: fly(core, call, answer, turn, flight, limitMs, now) };
}

async function fly<T>(
  core: Core,
  call: Call,
  answer: Answer<T>,
  turn: Turn,
  flight: Flight,
  limitMs: number,
  startedAt: number,
): Promise<Result<T>> {
  const { state, target, method, settings } = call;
  const headers = attemptHeaders(call, limitMs, answer.accept);
  let response: Response | undefined;
  let handedOver = false;
  try {
    if (settings.hooks.request !== undefined) {
      const failure = await runRequestHook(settings.hooks.request, call, turn, headers);
      if (failure !== undefined) return fail(core, call, turn, startedAt, undefined, failure);
    }
    const fresh = needsFreshConnection(call, turn.number, startedAt);
    response = await send(core, call, target.url, method, headers, call.body, flight.signal, fresh);
    if (isRedirect(response.status)) {
      const end = await followRedirects(core, call, headers, flight.signal, response);
      response = end.response;
      if (end.failure !== undefined) return fail(core, call, turn, startedAt, response, end.failure);
    }
    if (response.status >= 400) {
      const failure = statusFailure(call, response, await readErrorBody(response), core.clock.now());
      return fail(core, call, turn, startedAt, response, failure);
    }
    const limit = settings.maxResponseBytes;
    const value = await answer.take(response, limit, () => {
      handedOver = true;
      const translate = (error: unknown): unknown => errorOf(call, failureOf(call, flight.stopped, error, true), []);
      return { flight, limit, translate };
    });
    return { ok: true, attempt: record(core, call, turn, startedAt, response, undefined), value, whole: !handedOver };
  } catch (error) {
    const failure = failureOf(call, flight.stopped, error, response !== undefined);
    if (failure.kind === "connection") state.lostAt = core.clock.now();
    return fail(core, call, turn, startedAt, response, failure);
  } finally {
    if (!handedOver) flight.end();
  }
}

function fail(
  core: Core,
  call: Call,
  turn: Turn,
  startedAt: number,
  response: Response | undefined,
  failure: Failure,
): { ok: false; attempt: Attempt; failure: Failure } {
  return { ok: false, attempt: record(core, call, turn, startedAt, response, failure), failure };
}

/** What is kept of an attempt. */
function record(
  core: Core,
  call: Call,
  turn: Turn,
  startedAt: number,
  response: Response | undefined,
  failure: Failure | undefined,
): Attempt {
  const attempt: { -readonly [K in keyof Attempt]: Attempt[K] } = {
    number: turn.number,
    startedAt,
    waitedMs: turn.waitedMs,
    tookMs: core.clock.now() - startedAt,
    outcome: failure === undefined ? "ok" : failure.kind,
    sent: failure === undefined ? "yes" : failure.sent,
  };
  if (response !== undefined) {
    attempt.status = response.status;
    // looking at headers can be measured, and who answered well interests nobody unless somebody watches
    const instance = failure === undefined && !isWatched(call) ? null : response.headers.get("smartstack-instance");
    if (instance !== null) attempt.instance = instance;
  }
  if (failure?.code !== undefined) attempt.code = failure.code;
  if (turn.hedge !== undefined) attempt.hedge = turn.hedge;
  return attempt;
}

async function runRequestHook(
  hook: NonNullable<Hooks["request"]>,
  call: Call,
  turn: Turn,
  headers: HeaderMap,
): Promise<Failure | undefined> {
  const { method, target } = call;
  try {
    await hook({ service: target.service, method, url: target.url, attempt: turn.number, headers });
    return undefined;
  } catch (error) {
    const what = `was stopped by a hook: ${describeError(error)}`;
    return { kind: "hook_failed", sent: "no", what, transient: false, cause: error };
  }
}
