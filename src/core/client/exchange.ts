// One call from its first attempt to its end: asks the policies, sends, decides, waits, and tells what happened.
import { fullJitter } from "../lib/backoff.ts";
import type { Answer } from "./answer.ts";
import { type Result, start, type Turn } from "./attempt.ts";
import type { Ticket } from "./breaker.ts";
import type { Entry } from "./bulkhead.ts";
import type { Call } from "./call.ts";
import type { Core } from "./core.ts";
import { type Attempt, SmartClientError } from "./error.ts";
import { publishAttempt, publishCall } from "./events.ts";
import { errorOf, type Failure, timedOut } from "./failure.ts";
import { attemptHedged, hedgeDelay } from "./hedge.ts";
import { notify } from "./hooks.ts";
import { mayRetry } from "./retry.ts";

/** How long a router that refuses connections is asked again, in ms: HAProxy is restarted well within it. */
const ROUTER_GRACE_MS = 2_000;
const ROUTER_BACKOFF = { baseMs: 25, capMs: 100 };

/** Where a call stands between two attempts. */
type Course = {
  readonly attempts: Attempt[];
  turn: Turn;
  /** When the router first refused in this row of refusals. */
  refusedAt: number | undefined;
};

/** @throws SmartClientError */
export async function exchange<T>(core: Core, call: Call, answer: Answer<T>): Promise<T> {
  const { state } = call;
  const course: Course = { attempts: [], turn: { number: 1, waitedMs: 0 }, refusedAt: undefined };
  const { attempts } = course;
  state.counters.calls += 1;
  state.budget.request(call.startedAt);
  let now = call.startedAt;
  try {
    for (;;) {
      const place = takePlace(core, call, attempts, now);
      if (place !== undefined) now = await place;
      const ticket = takeTicket(call, attempts, now);
      const hedgeMs = hedgeDelay(call);
      const result =
        hedgeMs === undefined
          ? await start(core, call, answer, course.turn, now).result
          : await hedged(core, call, answer, course, now, hedgeMs);
      const { attempt } = result;
      now = attempt.startedAt + attempt.tookMs;
      if (leftUs(result)) state.counters.sent += 1;
      settleTicket(call, ticket, result, now);
      if (result.ok) {
        attempts.push(attempt);
        publishAttempt(call, attempt);
        state.counters.ok += 1;
        if (result.whole) state.latency.add(attempt.tookMs);
        publishCall(call, attempts, now, undefined);
        return result.value;
      }
      now = await waitForNext(core, call, course, result.failure, attempt);
    }
  } catch (error) {
    state.counters.failed += 1;
    if (error instanceof SmartClientError) publishCall(call, attempts, core.clock.now(), error);
    throw error;
  }
}

/** A router that refused, or a hook that threw, kept it here. */
function leftUs<T>(result: Result<T>): boolean {
  return result.ok || !(result.failure.routerRefused || result.failure.kind === "hook_failed");
}

/** After a failed attempt: waits until the next may leave. @returns the time then. @throws SmartClientError when none may */
async function waitForNext(
  core: Core,
  call: Call,
  course: Course,
  failure: Failure,
  attempt: Attempt,
): Promise<number> {
  const { attempts, turn } = course;
  if (failure.routerRefused) {
    course.refusedAt ??= attempt.startedAt;
    const refusals = addRefusal(attempts, attempt);
    const waitMs = 1 + fullJitter(refusals, { ...ROUTER_BACKOFF, random: core.random });
    if (!mayAskRouterAgain(core, call, course.refusedAt, waitMs)) throw errorOf(call, failure, attempts);
    return pause(core, call, waitMs, attempts);
  }
  course.refusedAt = undefined;
  attempts.push(attempt);
  publishAttempt(call, attempt);
  const plan = planRetry(core, call, failure, turn.number);
  if (!plan.again) throw errorOf(call, failure, attempts, plan.because);
  const { waitMs } = plan;
  call.state.counters.retries += 1;
  const { target, method, settings } = call;
  const { retry } = settings.hooks;
  notify("retry", retry, { service: target.service, method, url: target.url, failed: attempt, waitMs });
  course.turn = { number: turn.number + 1, waitedMs: waitMs };
  return pause(core, call, waitMs, attempts);
}

async function hedged<T>(
  core: Core,
  call: Call,
  answer: Answer<T>,
  course: Course,
  now: number,
  delayMs: number,
): Promise<Result<T>> {
  const { result, other } = await attemptHedged(core, call, answer, course.turn, now, delayMs);
  if (other !== undefined) {
    course.attempts.push(other);
    publishAttempt(call, other);
  }
  return result;
}

/**
 * A place in the service's bulkhead; a promise (of the time when it was had) only when one has to be waited for.
 * @throws SmartClientError
 */
function takePlace(core: Core, call: Call, attempts: readonly Attempt[], now: number): Promise<number> | undefined {
  const { state, settings, signal } = call;
  if (signal?.aborted) throw errorOf(call, aborted(call), attempts);
  const left = call.deadlineAt - now;
  if (left <= 0) throw errorOf(call, tooLate(call), attempts);
  const entry = state.compartment.enter(settings.bulkhead);
  if (entry.kind === "in") return undefined;
  if (entry.kind === "queued") return waitForPlace(core, call, entry, left, attempts);
  state.counters.rejected += 1;
  const what = `was not sent: ${state.compartment.inFlight} calls to ${state.name} are under way and ${state.compartment.waiting} wait`;
  throw errorOf(call, { kind: "bulkhead_full", sent: "no", what, transient: true }, attempts);
}

async function waitForPlace(
  core: Core,
  call: Call,
  entry: Entry & { kind: "queued" },
  left: number,
  attempts: readonly Attempt[],
): Promise<number> {
  const { signal } = call;
  const outcome = await new Promise<"in" | "given up">((resolve) => {
    const settle = (how: "in" | "given up"): void => {
      cancelTimer?.();
      signal?.removeEventListener("abort", giveUp);
      resolve(how);
    };
    const giveUp = (): void => settle("given up");
    const cancelTimer = left === Number.POSITIVE_INFINITY ? undefined : core.clock.after(left, giveUp);
    signal?.addEventListener("abort", giveUp, { once: true });
    void entry.ready.then(() => settle("in"));
  });
  const now = core.clock.now();
  // places are given back when deadlines pass, so one may come just when it is of no use any more
  if (outcome !== "given up" && now < call.deadlineAt) return now;
  entry.cancel();
  throw errorOf(call, signal?.aborted ? aborted(call) : tooLate(call, "while it waited for a place"), attempts);
}

/** The breaker's leave to send. @throws SmartClientError; the place is given back */
function takeTicket(call: Call, attempts: readonly Attempt[], now: number): Ticket | undefined {
  const { state, settings } = call;
  if (settings.circuitBreaker === false) return undefined;
  const ticket = state.breaker.admit(now);
  if (ticket !== undefined) return ticket;
  state.compartment.leave();
  state.counters.rejected += 1;
  const breaker = state.breaker.state;
  const when = breaker.kind === "open" ? `for ${Math.ceil(breaker.until - now)} ms more` : "until a probe answers";
  const what = `was not sent: ${state.name} failed too often and is left alone ${when}`;
  throw errorOf(call, { kind: "circuit_open", sent: "no", what, transient: true }, attempts);
}

function settleTicket<T>(call: Call, ticket: Ticket | undefined, result: Result<T>, now: number): void {
  const { circuitBreaker } = call.settings;
  if (circuitBreaker === false || ticket === undefined) return;
  call.state.breaker.record(now, ticket, verdict(result), circuitBreaker);
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

/** @returns the time after it. @throws SmartClientError when the caller's signal aborts it */
async function pause(core: Core, call: Call, ms: number, attempts: readonly Attempt[]): Promise<number> {
  try {
    await core.clock.sleep(ms, call.signal);
    return core.clock.now();
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
