// One call from its first attempt to its end: asks the policies, sends, decides, waits, and tells what happened.
import { fullJitter } from "../lib/backoff.ts";
import type { Answer } from "./answer.ts";
import { type Result, start, type Turn } from "./attempt.ts";
import type { Ticket } from "./breaker.ts";
import type { Call } from "./call.ts";
import type { Core } from "./core.ts";
import { type Attempt, SmartClientError } from "./error.ts";
import { publishAttempt, publishCall } from "./events.ts";
import { errorOf, type Failure, timedOut } from "./failure.ts";
import { attemptHedged, hedgeDelay } from "./hedge.ts";
import { mayRetry } from "./retry.ts";

/** How long a router that refuses connections is asked again, in ms: HAProxy is restarted well within it. */
export const ROUTER_GRACE_MS = 2_000;
const ROUTER_BACKOFF = { baseMs: 25, capMs: 100 };

/** @throws SmartClientError */
export async function exchange<T>(core: Core, call: Call, answer: Answer<T>): Promise<T> {
  const { state } = call;
  const attempts: Attempt[] = [];
  state.counters.calls += 1;
  state.budget.request(call.startedAt);
  try {
    const value = await untilDone(core, call, answer, attempts);
    state.counters.ok += 1;
    publishCall(call, attempts, core.clock.now(), undefined);
    return value;
  } catch (error) {
    if (!(error instanceof SmartClientError)) throw error;
    state.counters.failed += 1;
    publishCall(call, attempts, core.clock.now(), error);
    throw error;
  }
}

async function untilDone<T>(core: Core, call: Call, answer: Answer<T>, attempts: Attempt[]): Promise<T> {
  let turn: Turn = { number: 1, waitedMs: 0 };
  let refusedAt: number | undefined;
  for (;;) {
    await takePlace(core, call, attempts);
    const ticket = takeTicket(core, call, attempts);
    const result = await oneAttempt(core, call, answer, turn, attempts);
    settleTicket(core, call, ticket, result);
    if (result.ok) {
      attempts.push(result.attempt);
      publishAttempt(call, result.attempt);
      if (!answer.handsOver) call.state.latency.add(result.attempt.tookMs);
      return result.value;
    }
    const { failure, attempt } = result;
    if (failure.routerRefused) {
      refusedAt ??= attempt.startedAt;
      const refusals = addRefusal(attempts, attempt);
      const waitMs = 1 + fullJitter(refusals, { ...ROUTER_BACKOFF, random: core.random });
      if (!mayAskRouterAgain(core, call, refusedAt, waitMs)) throw errorOf(call, failure, attempts);
      await pause(core, call, waitMs, attempts);
      continue;
    }
    refusedAt = undefined;
    attempts.push(attempt);
    publishAttempt(call, attempt);
    const plan = planRetry(core, call, failure, turn.number);
    if (!plan.again) throw errorOf(call, failure, attempts, plan.because);
    call.state.counters.retries += 1;
    const { target, method, settings } = call;
    settings.hooks.retry?.({ service: target.service, method, url: target.url, failed: attempt, waitMs: plan.waitMs });
    await pause(core, call, plan.waitMs, attempts);
    turn = { number: turn.number + 1, waitedMs: plan.waitMs };
  }
}

async function oneAttempt<T>(
  core: Core,
  call: Call,
  answer: Answer<T>,
  turn: Turn,
  attempts: Attempt[],
): Promise<Result<T>> {
  const delayMs = hedgeDelay(call);
  if (delayMs === undefined) return start(core, call, answer, turn).result;
  const { result, other } = await attemptHedged(core, call, answer, turn, delayMs);
  if (other !== undefined) {
    attempts.push(other);
    publishAttempt(call, other);
  }
  return result;
}

/** A place in the service's bulkhead, waiting for one if need be. @throws SmartClientError */
async function takePlace(core: Core, call: Call, attempts: readonly Attempt[]): Promise<void> {
  const { clock } = core;
  const { state, settings, signal } = call;
  if (signal?.aborted) throw errorOf(call, aborted(call), attempts);
  const left = call.deadlineAt - clock.now();
  if (left <= 0) throw errorOf(call, tooLate(call), attempts);
  const entry = state.compartment.enter(settings.bulkhead);
  if (entry.kind === "in") return;
  if (entry.kind === "queued") {
    const timeUp = new AbortController();
    const cancelTimer = left === Number.POSITIVE_INFINITY ? undefined : clock.after(left, () => timeUp.abort());
    const onAbort = (): void => timeUp.abort();
    signal?.addEventListener("abort", onAbort, { once: true });
    const outcome = await Promise.race([entry.ready, aborts(timeUp.signal)]);
    cancelTimer?.();
    signal?.removeEventListener("abort", onAbort);
    if (outcome !== "aborted") return;
    entry.cancel();
    throw errorOf(call, signal?.aborted ? aborted(call) : tooLate(call, "while it waited for a place"), attempts);
  }
  state.counters.rejected += 1;
  const what = `was not sent: ${state.compartment.inFlight} calls to ${state.name} are under way and ${state.compartment.waiting} wait`;
  throw errorOf(call, { kind: "bulkhead_full", sent: "no", what, transient: true }, attempts);
}

function aborts(signal: AbortSignal): Promise<"aborted"> {
  return new Promise((resolve) => {
    signal.addEventListener("abort", () => resolve("aborted"), { once: true });
  });
}

/** The breaker's leave to send. @throws SmartClientError; the place is given back */
function takeTicket(core: Core, call: Call, attempts: readonly Attempt[]): Ticket | undefined {
  const { state, settings } = call;
  if (settings.circuitBreaker === false) return undefined;
  const now = core.clock.now();
  const ticket = state.breaker.admit(now);
  if (ticket !== undefined) return ticket;
  state.compartment.leave();
  state.counters.rejected += 1;
  const breaker = state.breaker.state;
  const when = breaker.kind === "open" ? `for ${Math.ceil(breaker.until - now)} ms more` : "until a probe answers";
  const what = `was not sent: ${state.name} failed too often and is left alone ${when}`;
  throw errorOf(call, { kind: "circuit_open", sent: "no", what, transient: true }, attempts);
}

function settleTicket<T>(core: Core, call: Call, ticket: Ticket | undefined, result: Result<T>): void {
  const { circuitBreaker } = call.settings;
  if (circuitBreaker === false || ticket === undefined) return;
  call.state.breaker.record(core.clock.now(), ticket, verdict(result), circuitBreaker);
}

/** What an attempt says about the health of the service. */
function verdict<T>(result: Result<T>): "ok" | "failed" | "ignored" {
  if (result.ok) return "ok";
  const { kind, status, routerRefused } = result.failure;
  if (routerRefused) return "ignored";
  switch (kind) {
    case "connect":
    case "connection":
    case "timeout":
    case "no_instance":
      return "failed";
    case "status":
      return status === 502 || status === 503 || status === 504 ? "failed" : "ok";
    case "redirect":
    case "response_too_large":
    case "bad_answer":
      return "ok";
    case "router_unreachable":
    case "unknown_service":
    case "aborted":
    case "hook_failed":
    case "invalid_request":
    case "circuit_open":
    case "bulkhead_full":
      return "ignored";
  }
}

type Plan = { readonly again: true; readonly waitMs: number } | { readonly again: false; readonly because?: string };

function planRetry(core: Core, call: Call, failure: Failure, number: number): Plan {
  const { state, settings } = call;
  const { retry } = settings;
  if (number >= retry.attempts || !mayRetry(failure, call, retry)) return { again: false };
  const now = core.clock.now();
  // what the service asked for, and on top of it the jitter that keeps the crowd from returning as one
  const waitMs =
    (failure.retryAfterMs ?? 0) +
    fullJitter(number - 1, { baseMs: retry.baseMs, capMs: retry.capMs, random: core.random });
  if (now + waitMs >= call.deadlineAt) return { again: false, because: "no time left for another attempt" };
  const breaker = state.breaker.state;
  if (settings.circuitBreaker !== false && breaker.kind === "open" && breaker.until > now + waitMs)
    return { again: false, because: "not tried again: the service fails too often" };
  if (!state.budget.withdraw(now, retry.budget))
    return { again: false, because: "not tried again: the retry budget is spent" };
  return { again: true, waitMs };
}

function mayAskRouterAgain(core: Core, call: Call, refusedAt: number, waitMs: number): boolean {
  const at = core.clock.now() + waitMs;
  return (
    call.settings.retry.attempts > 1 && call.replayable && at - refusedAt < ROUTER_GRACE_MS && at < call.deadlineAt
  );
}

/** One record for a row of refusals, however many. @returns how many there were in this row */
function addRefusal(attempts: Attempt[], attempt: Attempt): number {
  const last = attempts.at(-1);
  if (last?.outcome !== "router_unreachable") {
    attempts.push({ ...attempt, times: 1 });
    return 1;
  }
  const times = (last.times ?? 1) + 1;
  attempts[attempts.length - 1] = { ...last, times, tookMs: attempt.startedAt + attempt.tookMs - last.startedAt };
  return times;
}

/** @throws SmartClientError when the caller's signal aborts it */
async function pause(core: Core, call: Call, ms: number, attempts: readonly Attempt[]): Promise<void> {
  try {
    await core.clock.sleep(ms, call.signal);
  } catch (error) {
    if (!call.signal?.aborted) throw error;
    throw errorOf(call, aborted(call), attempts);
  }
}

function aborted(call: Call): Failure {
  return { kind: "aborted", sent: "no", what: "was aborted", transient: false, cause: call.signal?.reason };
}

function tooLate(call: Call, when = ""): Failure {
  return { kind: "timeout", sent: "no", what: `${timedOut(call)}${when === "" ? "" : ` ${when}`}`, transient: false };
}
