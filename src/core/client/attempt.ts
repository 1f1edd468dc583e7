// One request, from leaving to the end of its body, in a flight that ends in time.
import { describeError } from "../lib/errors.ts";
import type { Answer } from "./answer.ts";
import { attemptHeaders, type Call } from "./call.ts";
import type { Core } from "./core.ts";
import type { Attempt } from "./error.ts";
import { errorOf, type Failure, failureOf, statusFailure } from "./failure.ts";
import { Flight } from "./flight.ts";
import type { HeaderMap } from "./header.ts";
import { readErrorBody } from "./reading.ts";
import { needsFreshConnection, send } from "./sending.ts";

export type Result<T> =
  | { readonly ok: true; readonly attempt: Attempt; readonly value: T }
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

/** Takes off. The caller holds a place in the service's bulkhead, which is given back when the flight ends. */
export function start<T>(core: Core, call: Call, answer: Answer<T>, turn: Turn): Started<T> {
  const { attemptTimeout } = call.settings;
  const left = call.deadlineAt - core.clock.now();
  const limitMs = Math.min(left, attemptTimeout);
  const flight = new Flight({
    clock: core.clock,
    limitMs,
    onLimit: left <= attemptTimeout ? "call_timeout" : "attempt_timeout",
    signal: call.signal,
    onEnd: call.state.compartment.leave,
  });
  return { flight, result: fly(core, call, answer, turn, flight, limitMs) };
}

async function fly<T>(
  core: Core,
  call: Call,
  answer: Answer<T>,
  turn: Turn,
  flight: Flight,
  limitMs: number,
): Promise<Result<T>> {
  const { clock } = core;
  const startedAt = clock.now();
  const headers = attemptHeaders(call, limitMs, answer.accept);
  let response: Response | undefined;
  let handedOver = false;
  const end = (outcome: Attempt["outcome"], failure?: Failure): Attempt => ({
    number: turn.number,
    startedAt,
    waitedMs: turn.waitedMs,
    tookMs: clock.now() - startedAt,
    outcome,
    sent: failure?.sent ?? "yes",
    ...(response === undefined ? undefined : answeredBy(response)),
    ...(failure?.code === undefined ? undefined : { code: failure.code }),
    ...(turn.hedge === undefined ? undefined : { hedge: turn.hedge }),
  });
  const fail = (failure: Failure): Result<T> => ({ ok: false, attempt: end(failure.kind, failure), failure });
  try {
    const hookFailure = await runRequestHook(call, turn, headers);
    if (hookFailure !== undefined) return fail(hookFailure);
    call.state.counters.sent += 1;
    const sending = await send(core, call, headers, flight.signal, needsFreshConnection(call, turn.number, startedAt));
    response = sending.response;
    if (!sending.ok) return fail(sending.failure);
    if (response.status >= 400) return fail(statusFailure(call, response, await readErrorBody(response), clock.now()));
    handedOver = answer.handsOver;
    const value = await answer.read(response, {
      flight,
      limit: call.settings.maxResponseBytes,
      translate: (error) => errorOf(call, failureOf(call, flight.stopped, error, true), []),
    });
    return { ok: true, attempt: end("ok"), value };
  } catch (error) {
    const failure = failureOf(call, flight.stopped, error, response !== undefined);
    if (failure.kind === "connection") call.state.lostAt = clock.now();
    return fail(failure);
  } finally {
    if (!handedOver) flight.end();
  }
}

function answeredBy(response: Response): { status: number; instance?: string } {
  const instance = response.headers.get("smartstack-instance");
  return instance === null ? { status: response.status } : { status: response.status, instance };
}

async function runRequestHook(call: Call, turn: Turn, headers: HeaderMap): Promise<Failure | undefined> {
  const hook = call.settings.hooks.request;
  if (hook === undefined) return undefined;
  const { method, target } = call;
  try {
    await hook({ service: target.service, method, url: target.url, attempt: turn.number, headers });
    return undefined;
  } catch (error) {
    const what = `was stopped by a hook: ${describeError(error)}`;
    return { kind: "hook_failed", sent: "no", what, transient: false, cause: error };
  }
}
