// The wire to DynamoDB: every call ends in time, is repeated when that may help, and fails as a Fault that says what to do.
// While DynamoDB is away calls fail at once, so that nobody queues behind a deadline; a probe notices when it is back.
import { DynamoDBClient, GetItemCommand, TransactionCanceledException } from "@aws-sdk/client-dynamodb";
import { fullJitter } from "../lib/backoff.ts";
import type { Cancel, Clock } from "../lib/clock.ts";
import { describeError, errorCode, Fault } from "../lib/errors.ts";
import { META_KEY } from "./dynamodb-items.ts";

export type DynamoDbOptions = {
  readonly table: string;
  /** Another server than AWS's own of the region. */
  readonly endpoint?: string | undefined;
  /** @default what AWS_REGION or the profile says; with an endpoint us-east-1 when they say nothing */
  readonly region?: string | undefined;
  readonly clock: Clock;
};

/** One attempt; a call has as many as fit into `TOTAL_MS`, three at most. */
const ATTEMPT_MS = 2_000;
const TOTAL_MS = 5_000;
const ATTEMPTS = 3;
const BACKOFF = { baseMs: 50, capMs: 400 };

/** How often to look whether DynamoDB is back, and whether it is still there when nobody asked anything of it, in ms. */
const PROBE_MS = { away: 1_000, idle: 5_000 };

/** What an attempt hands to the SDK. */
export type SendOptions = { readonly abortSignal: AbortSignal };

export class DynamoDb {
  readonly table: string;
  readonly #options: DynamoDbOptions;
  readonly #clock: Clock;
  readonly #closing = new AbortController();
  #client: DynamoDBClient;
  #away: Fault | undefined;
  #watching = false;
  /** When DynamoDB last answered, by the clock. */
  #answeredAt = 0;
  #cancelProbe: Cancel = () => undefined;

  constructor(options: DynamoDbOptions) {
    this.table = options.table;
    this.#options = options;
    this.#clock = options.clock;
    this.#client = this.#newClient(options.region);
  }

  /**
   * Finds out the region and the credentials, which the SDK would otherwise do within the first call.
   * @throws Fault `store_region`, `store_credentials` within 5 s
   */
  async connect(): Promise<void> {
    const { region, endpoint } = this.#options;
    try {
      await this.#client.config.region();
    } catch (error) {
      if (region !== undefined || endpoint === undefined) {
        throw new Fault({
          code: "store_region",
          message: "the AWS region of DynamoDB is not known",
          hint: "Say --dynamodb-region, or set AWS_REGION.",
          cause: error,
        });
      }
      // the endpoint decides where requests go; the region is only signed
      this.#client = this.#newClient("us-east-1");
    }
    try {
      await orAborted(AbortSignal.timeout(TOTAL_MS), this.#client.config.credentials());
    } catch (error) {
      throw new Fault({
        code: "store_credentials",
        message: "no AWS credentials for DynamoDB were found",
        hint: "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or give this machine a role.",
        cause: error,
      });
    }
  }

  /**
   * Asks DynamoDB. `work` may run several times, so what it sends must be safe to repeat.
   * @throws the SDK's ConditionalCheckFailedException, TransactionCanceledException (of a condition) and
   *   ResourceInUseException as they are; Fault `unavailable` when there was no use in trying again; Fault `store_refused`
   *   when DynamoDB says that the request itself is wrong
   */
  async call<T>(work: (client: DynamoDBClient, options: SendOptions) => Promise<T>): Promise<T> {
    if (this.#away !== undefined) throw this.#away;
    const deadline = performance.now() + TOTAL_MS;
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.#attempt(work, Math.min(ATTEMPT_MS, deadline - performance.now()));
      } catch (error) {
        const kind = this.#closing.signal.aborted ? "closed" : kindOf(error);
        if (kind === "answer") throw error;
        if (kind === "refused") throw refused(error);
        const wait = fullJitter(attempt, BACKOFF);
        const again = kind === "unreachable" || kind === "busy";
        if (!again || attempt + 1 === ATTEMPTS || performance.now() + wait >= deadline) {
          throw this.#failed(kind, error);
        }
        await this.#clock.sleep(wait, this.#closing.signal);
      }
    }
  }

  /** From now on a failure counts for everybody, and DynamoDB is looked after also when nobody asks anything of it. */
  watch(): void {
    this.#watching = true;
    this.#scheduleProbe();
  }

  /** Why DynamoDB cannot be used now, in words, or undefined. */
  trouble(): string | undefined {
    return this.#away === undefined ? undefined : describeError(this.#away);
  }

  /** Ends every call at once. */
  close(): void {
    this.#closing.abort(new Error("Atlas is stopping"));
    this.#cancelProbe();
    this.#client.destroy();
  }

  #newClient(region: string | undefined): DynamoDBClient {
    const { endpoint } = this.#options;
    return new DynamoDBClient({
      // ours is bounded by a deadline, and knows what may be repeated
      maxAttempts: 1,
      ...(endpoint === undefined ? {} : { endpoint }),
      ...(region === undefined ? {} : { region }),
    });
  }

  async #attempt<T>(work: (client: DynamoDBClient, options: SendOptions) => Promise<T>, timeoutMs: number): Promise<T> {
    const controller = new AbortController();
    const { signal: abortSignal } = controller;
    const late = (): void => controller.abort(new Error(`no answer within ${Math.round(timeoutMs)} ms`));
    const closing = (): void => controller.abort(this.#closing.signal.reason);
    const cancel = this.#clock.after(Math.max(1, timeoutMs), late);
    this.#closing.signal.addEventListener("abort", closing, { once: true });
    try {
      // raced: the SDK looks for credentials before it looks at the signal
      const answer = await orAborted(abortSignal, work(this.#client, { abortSignal }));
      this.#answered();
      return answer;
    } catch (error) {
      if (kindOf(error) === "answer") this.#answered();
      throw error;
    } finally {
      cancel();
      this.#closing.signal.removeEventListener("abort", closing);
    }
  }

  #answered(): void {
    this.#away = undefined;
    this.#answeredAt = this.#clock.now();
  }

  #failed(kind: Trouble, cause: unknown): Fault {
    const { message, hint } = this.#words(kind, cause);
    const fault = new Fault({ code: "unavailable", message, hint, cause });
    if (kind !== "closed" && this.#watching && this.#away === undefined) {
      this.#away = fault;
      this.#scheduleProbe();
    }
    return fault;
  }

  #scheduleProbe(): void {
    this.#cancelProbe();
    const wait = this.#away === undefined ? PROBE_MS.idle : PROBE_MS.away;
    this.#cancelProbe = this.#clock.after(wait, () => void this.#probe());
  }

  #words(kind: Trouble, cause: unknown): { message: string; hint: string } {
    const where = this.#options.endpoint ?? "AWS";
    switch (kind) {
      case "unreachable":
        return {
          message: `DynamoDB does not answer at ${where}; definitions, settings and ports cannot change`,
          hint: "Atlas keeps trying; instances, drains and watches go on. Can this machine reach it?",
        };
      case "busy":
        return {
          message: `DynamoDB is too busy for the table ${this.table}`,
          hint: "A table that is billed on demand grows within minutes; see the limits of the account.",
        };
      case "denied":
        return {
          message: `AWS does not let this Atlas use the table ${this.table}`,
          hint: "Are the credentials valid, and does their role have the actions that docs/storage.md lists?",
        };
      case "missing":
        return {
          message: `the table ${this.table} does not exist at ${where}`,
          hint: "It was deleted while Atlas used it. Restore it from a backup of DynamoDB, then restart Atlas.",
        };
      case "closed":
        return { message: "Atlas is stopping", hint: `Ask another replica (${describeError(cause)}).` };
    }
  }

  async #probe(): Promise<void> {
    const due = this.#away !== undefined || this.#clock.now() - this.#answeredAt >= PROBE_MS.idle;
    if (due) {
      const ask = (client: DynamoDBClient, options: SendOptions) =>
        client.send(new GetItemCommand({ TableName: this.table, Key: META_KEY, ConsistentRead: true }), options);
      try {
        await (this.#away === undefined ? this.call(ask) : this.#attempt(ask, ATTEMPT_MS));
      } catch (error) {
        // call() noted it; while away, what is known stays true unless it changed its kind
        if (this.#away !== undefined && !(error instanceof Fault)) this.#renew(error);
      }
    }
    if (!this.#closing.signal.aborted) this.#scheduleProbe();
  }

  #renew(error: unknown): void {
    const kind = kindOf(error);
    if (kind === "answer" || kind === "refused" || this.#closing.signal.aborted) return;
    this.#away = undefined;
    this.#failed(kind, error);
  }
}

type Trouble = "unreachable" | "busy" | "denied" | "missing" | "closed";

const ANSWERS = new Set(["ConditionalCheckFailedException", "ResourceInUseException"]);
const BUSY = new Set([
  "ThrottlingException",
  "ProvisionedThroughputExceededException",
  "RequestLimitExceeded",
  "LimitExceededException",
  "TransactionInProgressException",
  "ReplicatedWriteConflictException",
]);
const DENIED = new Set([
  "AccessDeniedException",
  "CredentialsProviderError",
  "ExpiredTokenException",
  "IncompleteSignatureException",
  "InvalidSignatureException",
  "MissingAuthenticationTokenException",
  "UnrecognizedClientException",
]);
const REFUSED = new Set([
  "ValidationException",
  "ItemCollectionSizeLimitExceededException",
  "IdempotentParameterMismatchException",
]);

/** What an error of the SDK means for us, by its name, which is part of DynamoDB's API; messages are not. */
function kindOf(error: unknown): "answer" | "refused" | Trouble {
  if (error instanceof TransactionCanceledException) {
    const reasons = new Set((error.CancellationReasons ?? []).map(({ Code }) => Code));
    if (reasons.has("ConditionalCheckFailed")) return "answer";
    return reasons.has("ValidationError") || reasons.has("ItemCollectionSizeLimitExceeded") ? "refused" : "busy";
  }
  const name = error instanceof Error ? error.name : "";
  if (ANSWERS.has(name)) return "answer";
  if (BUSY.has(name)) return "busy";
  if (DENIED.has(name)) return "denied";
  if (REFUSED.has(name)) return "refused";
  return name === "ResourceNotFoundException" ? "missing" : "unreachable";
}

function refused(cause: unknown): Fault {
  return new Fault({ code: "store_refused", message: "DynamoDB refuses what Atlas asks of it", cause });
}

/** Whether a condition was not met: somebody else was first. */
export function isConditionFailed(error: unknown): boolean {
  return error instanceof Error && error.name === "ConditionalCheckFailedException";
}

/** The same of one of the conditions of a transaction; nothing of it happened. */
export function isTransactionRefused(error: unknown): boolean {
  return error instanceof TransactionCanceledException;
}

/** Whether DynamoDB says that the table is not there. */
export function isTableMissing(error: unknown): boolean {
  const cause: unknown = error instanceof Fault && errorCode(error) === "unavailable" ? error.cause : error;
  return cause instanceof Error && cause.name === "ResourceNotFoundException";
}

/** Settles like `work`, or rejects when the signal aborts first. */
function orAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
