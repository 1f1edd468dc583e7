// Health in Runscope's shape (its open-source healthcheck library): every check runs, an exception is a failure, results are
// cached because every host's HAProxy asks. Critical checks also run in the background, so that /readyz never waits for one.
import type { Cancel, Clock } from "../lib/clock.ts";
import { describeError } from "../lib/errors.ts";
import type { Logger } from "../lib/logger.ts";

/** Passed or not, with words or without; nothing at all means passed, and so does a string, which is then the output. */
export type CheckAnswer = boolean | string | void | readonly [passed: boolean, output: string];

/** A health check of a service. `signal` aborts when its time is over. */
export type Check = (context: { readonly signal: AbortSignal }) => CheckAnswer | Promise<CheckAnswer>;

export type CheckOptions = {
  /** While it fails the instance gets no requests (`/readyz`). @default true */
  readonly critical?: boolean;
  /** In ms. The default is below HAProxy's own patience of 1,000 ms. @default 800 */
  readonly timeoutMs?: number;
};

/** One line of `results`. Times are Unix seconds, as in Runscope's library. */
export type CheckResult = {
  readonly checker: string;
  readonly output: string;
  readonly passed: boolean;
  readonly timestamp: number;
  readonly expires: number;
};

export type HealthReport = {
  readonly hostname: string;
  readonly status: "success" | "failure";
  readonly timestamp: number;
  readonly results: readonly CheckResult[];
};

/** How long results count, from Runscope's library. */
const PASSED_TTL_MS = 27_000;
const FAILED_TTL_MS = 9_000;
/** How often critical checks run in the background: a failed one oftener, so that readiness is back within 3 s. */
const PASSED_EVERY_MS = 2_000;
const FAILED_EVERY_MS = 1_000;

type Entry = {
  readonly name: string;
  readonly check: Check;
  readonly critical: boolean;
  readonly timeoutMs: number;
  latest: CheckResult | undefined;
  running: Promise<CheckResult> | undefined;
  next: Cancel | undefined;
};

export class Health {
  readonly #entries: Entry[] = [];
  readonly #clock: Clock;
  readonly #hostname: string;
  readonly #logger: Logger;
  #stopped = false;

  constructor(clock: Clock, hostname: string, logger: Logger) {
    this.#clock = clock;
    this.#hostname = hostname;
    this.#logger = logger;
  }

  add(name: string, check: Check, options: CheckOptions = {}): void {
    const { critical = true, timeoutMs = 800 } = options;
    this.#entries.push({ name, check, critical, timeoutMs, latest: undefined, running: undefined, next: undefined });
  }

  /** Runs every critical check once, then again and again until `stop`. Resolves after the first round. */
  async start(): Promise<void> {
    await Promise.all(this.#entries.filter(({ critical }) => critical).map((entry) => this.#watch(entry)));
  }

  stop(): void {
    this.#stopped = true;
    for (const entry of this.#entries) entry.next?.();
  }

  /** The answer of `/healthcheck`: cached results, fresh ones where the cache is over. */
  async report(): Promise<HealthReport> {
    const now = this.#clock.now();
    const results = await Promise.all(
      this.#entries.map(async (entry) =>
        entry.latest !== undefined && entry.latest.expires * 1_000 > now ? entry.latest : this.#run(entry),
      ),
    );
    return {
      hostname: this.#hostname,
      status: results.every(({ passed }) => passed) ? "success" : "failure",
      timestamp: this.#clock.now() / 1_000,
      results,
    };
  }

  /** Why the instance should get no requests: the critical checks that fail. From memory, at once. */
  failing(): readonly string[] {
    return this.#entries
      .filter(({ critical, latest }) => critical && latest?.passed !== true)
      .map(({ name, latest }) => `${name}: ${latest === undefined ? "not checked yet" : latest.output}`);
  }

  async #watch(entry: Entry): Promise<void> {
    const { passed } = await this.#run(entry);
    if (this.#stopped) return;
    entry.next = this.#clock.after(passed ? PASSED_EVERY_MS : FAILED_EVERY_MS, () => void this.#watch(entry));
  }

  /** One run at a time: callers that come meanwhile share it. */
  #run(entry: Entry): Promise<CheckResult> {
    entry.running ??= this.#evaluate(entry).then((result) => {
      const before = entry.latest?.passed;
      entry.latest = result;
      entry.running = undefined;
      if (before !== false && !result.passed) this.#logger.warn({ check: entry.name }, `check fails: ${result.output}`);
      if (before === false && result.passed) this.#logger.info({ check: entry.name }, "check passes again");
      return result;
    });
    return entry.running;
  }

  async #evaluate(entry: Entry): Promise<CheckResult> {
    const { passed, output } = await this.#outcome(entry);
    const now = this.#clock.now();
    const expires = now + (passed ? PASSED_TTL_MS : FAILED_TTL_MS);
    return { checker: entry.name, output, passed, timestamp: now / 1_000, expires: expires / 1_000 };
  }

  async #outcome({ check, timeoutMs }: Entry): Promise<{ passed: boolean; output: string }> {
    const over = new AbortController();
    let cancel: Cancel = () => undefined;
    const timeout = new Promise<never>((_resolve, reject) => {
      cancel = this.#clock.after(timeoutMs, () => {
        const reason = new Error(`no answer within ${timeoutMs} ms`);
        over.abort(reason);
        reject(reason);
      });
    });
    try {
      return outcomeOf(await Promise.race([(async () => check({ signal: over.signal }))(), timeout]));
    } catch (error) {
      return { passed: false, output: describeError(error) };
    } finally {
      cancel();
    }
  }
}

function outcomeOf(answer: CheckAnswer): { passed: boolean; output: string } {
  if (typeof answer === "boolean") return { passed: answer, output: answer ? "passed" : "failed" };
  if (typeof answer === "string") return { passed: true, output: answer };
  return answer === undefined ? { passed: true, output: "passed" } : { passed: answer[0], output: answer[1] };
}
