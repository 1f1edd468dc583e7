// The audit trail in DynamoDB: one partition a month, the newest at its end. Entries expire, so that it does not grow for ever.
import { BatchWriteItemCommand, type WriteRequest } from "@aws-sdk/client-dynamodb";
import { z } from "zod";
import { fullJitter } from "../lib/backoff.ts";
import type { Clock } from "../lib/clock.ts";
import { errorCode, Fault } from "../lib/errors.ts";
import { parseJson } from "../lib/json.ts";
import type { Logger } from "../lib/logger.ts";
import { auditEntrySchema } from "../model/answers.ts";
import type { DynamoDb } from "./dynamodb-client.ts";
import { auditMonthKey, type Item, monthOf, text } from "./dynamodb-items.ts";
import { query } from "./dynamodb-query.ts";
import type { AuditEntry } from "./meta-store.ts";
import { parseMeta } from "./meta-text.ts";

/** For how long entries are kept: a year, and a month to look at it. */
const KEPT_DAYS = 400;
/** How many partitions that can be, begun months included, and one ahead for clocks that are. */
const MONTHS = 15;
const DAY_S = 86_400;
/** One entry's `before` and `after` together; what is larger is left out, since an item has 400 KiB. */
const CONTENT_BYTES = 300 * 1_024;
const RETRIES = 5;
const BACKOFF = { baseMs: 50, capMs: 1_000 };

const lineSchema = z.object({ key: z.string().min(1).max(200), entry: auditEntrySchema });

/**
 * An entry as a line that is stored later, perhaps more than once: its key makes it the same entry each time.
 * @param key unique, and sorts by time
 */
export function auditLine(key: string, entry: AuditEntry): string {
  const bytes = (value: unknown): number => Buffer.byteLength(JSON.stringify(value ?? null));
  const [before, after] = [bytes(entry.before), bytes(entry.after)];
  const kept = before + after <= CONTENT_BYTES ? entry : { ...entry, before: leftOut(before), after: leftOut(after) };
  return JSON.stringify({ key, entry: kept });
}

function leftOut(bytes: number): unknown {
  return { leftOut: "too large for the audit trail", bytes };
}

export class DynamoDbAudit {
  readonly #db: DynamoDb;
  readonly #clock: Clock;
  readonly #logger: Logger;

  constructor(db: DynamoDb, clock: Clock, logger: Logger) {
    this.#db = db;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** Stores lines of `auditLine`, at most 25. Lines that are none are told to the log and left out. */
  async store(lines: readonly string[]): Promise<void> {
    const items = new Map(lines.flatMap((line) => this.#item(line)));
    const requests = [...items.values()].map((Item): WriteRequest => ({ PutRequest: { Item } }));
    if (requests.length === 0) return;
    try {
      await this.#write(requests);
    } catch (error) {
      if (errorCode(error) !== "store_refused") throw error;
      // one that DynamoDB will never take must not hold up the others for ever
      for (const request of requests) await this.#writeOrLog(request);
    }
  }

  /** Newest first. */
  async newest(limit: number): Promise<readonly AuditEntry[]> {
    const found: AuditEntry[] = [];
    for (const month of this.#months()) {
      const items = await query(this.#db, auditMonthKey(month), { newest: limit - found.length });
      found.push(...items.map((item) => auditEntry(text(item, "entry"))));
      if (found.length >= limit) break;
    }
    return found;
  }

  #item(line: string): [string, Item][] {
    const parsed = lineSchema.safeParse(parseJson(line));
    if (!parsed.success) {
      this.#logger.error({ line: line.slice(0, 1_000) }, "an audit entry on disk is damaged and was left out");
      return [];
    }
    const { key, entry } = parsed.data;
    const item = {
      pk: { S: auditMonthKey(monthOf(entry.at)) },
      sk: { S: key },
      entry: { S: JSON.stringify(entry) },
      expires: { N: String(Math.floor(Date.parse(entry.at) / 1_000) + KEPT_DAYS * DAY_S) },
    };
    return [[`${item.pk.S} ${key}`, item]];
  }

  async #write(requests: readonly WriteRequest[]): Promise<void> {
    let left = [...requests];
    for (let attempt = 0; left.length > 0; attempt += 1) {
      if (attempt > 0) await this.#clock.sleep(fullJitter(attempt, BACKOFF));
      const batch = left;
      const { UnprocessedItems = {} } = await this.#db.call((client, send) =>
        client.send(new BatchWriteItemCommand({ RequestItems: { [this.#db.table]: batch } }), send),
      );
      left = UnprocessedItems[this.#db.table] ?? [];
      if (left.length > 0 && attempt === RETRIES)
        throw new Fault({ code: "unavailable", message: "DynamoDB takes audit entries more slowly than they come" });
    }
  }

  async #writeOrLog(request: WriteRequest): Promise<void> {
    try {
      await this.#write([request]);
    } catch (error) {
      if (errorCode(error) !== "store_refused") throw error;
      this.#logger.error({ err: error, audit: request.PutRequest?.Item }, "DynamoDB refuses an audit entry");
    }
  }

  /** The months that can hold entries, the newest first. */
  #months(): readonly string[] {
    const now = new Date(this.#clock.now());
    return Array.from({ length: MONTHS }, (_, back) =>
      monthOf(new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1 - back, 1)).toISOString()),
    );
  }
}

function auditEntry(json: string): AuditEntry {
  const { before, after, reason, ...rest } = parseMeta(auditEntrySchema, json, "an audit entry");
  return { ...rest, reason, before, after };
}
