// Reserved ports in DynamoDB. A reservation is two items, one by port and one by service, written in one transaction on the
// condition that neither is there: whatever races with whatever, a port has one service and a service one port.
import { GetItemCommand, TransactWriteItemsCommand, type TransactWriteItem } from "@aws-sdk/client-dynamodb";
import { fullJitter } from "../lib/backoff.ts";
import type { Clock } from "../lib/clock.ts";
import { Fault } from "../lib/errors.ts";
import { serial } from "../lib/serial.ts";
import { type DynamoDb, isTransactionRefused } from "./dynamodb-client.ts";
import { number, PORT_PREFIX, portKey, portOfServiceKey, PORTS_KEY, text } from "./dynamodb-items.ts";
import { query } from "./dynamodb-query.ts";
import type { PortReservation } from "./meta-store.ts";
import { lowestFreePort } from "./ports.ts";

/** Of the replicas that race for the lowest free port one wins each round; more rounds than a fleet has replicas. */
const ROUNDS = 40;
const BACKOFF = { baseMs: 10, capMs: 200 };
/** A transaction takes 100 items. */
const PAIRS = 50;

export class DynamoDbPorts {
  readonly #db: DynamoDb;
  readonly #clock: Clock;
  // those of one process need not race
  readonly #queue = serial();

  constructor(db: DynamoDb, clock: Clock) {
    this.#db = db;
    this.#clock = clock;
  }

  reserve(service: string, taken: ReadonlySet<number>): Promise<PortReservation & { readonly created: boolean }> {
    return this.#rounds(async () => {
      const own = await this.#portOf(service);
      if (own !== undefined) return { service, port: own, created: false };
      const used = new Set((await this.all()).map(({ port }) => port));
      const reservation = { service, port: lowestFreePort(used, taken) };
      return (await this.#commit(puts(this.#db.table, reservation))) && { ...reservation, created: true };
    });
  }

  /** By port. */
  async all(): Promise<readonly PortReservation[]> {
    const items = await query(this.#db, PORTS_KEY, { prefix: PORT_PREFIX });
    return items.map((item) => ({ service: text(item, "service"), port: number(item, "port") }));
  }

  /** False when there was none. */
  release(service: string): Promise<boolean> {
    return this.#rounds(async () => {
      const port = await this.#portOf(service);
      if (port === undefined) return { released: false };
      return (await this.#commit(deletes(this.#db.table, { service, port }))) && { released: true };
    }).then(({ released }) => released);
  }

  /** Makes the reservations exactly these, fifty at a time: one that breaks off is repeated. */
  async replace(ports: readonly PortReservation[]): Promise<void> {
    const wanted = new Map(ports.map(({ service, port }) => [service, port]));
    await this.#rounds(async () => {
      const now = await this.all();
      const kept = new Set(
        now.filter(({ service, port }) => wanted.get(service) === port).map(({ service }) => service),
      );
      const going = now.filter(({ service }) => !kept.has(service));
      const coming = ports.filter(({ service }) => !kept.has(service));
      for (const [items, list] of [[deletes, going] as const, [puts, coming] as const]) {
        for (let index = 0; index < list.length; index += PAIRS) {
          const batch = list.slice(index, index + PAIRS).flatMap((one) => items(this.#db.table, one));
          if (!(await this.#commit(batch))) return false;
        }
      }
      return {};
    });
  }

  async #portOf(service: string): Promise<number | undefined> {
    const { Item } = await this.#db.call((client, send) =>
      client.send(
        new GetItemCommand({ TableName: this.#db.table, Key: portOfServiceKey(service), ConsistentRead: true }),
        send,
      ),
    );
    return Item && number(Item, "port");
  }

  /** False when another writer was first. */
  async #commit(items: TransactWriteItem[]): Promise<boolean> {
    // the same token in every attempt: one that came through though its answer was lost is not made twice
    const token = crypto.randomUUID();
    try {
      await this.#db.call((client, send) =>
        client.send(new TransactWriteItemsCommand({ TransactItems: items, ClientRequestToken: token }), send),
      );
      return true;
    } catch (error) {
      if (isTransactionRefused(error)) return false;
      throw error;
    }
  }

  /** Reads, decides and commits until nobody else was first. */
  #rounds<T extends object>(round: () => Promise<T | false>): Promise<T> {
    return this.#queue.run(async () => {
      for (let number = 0; number < ROUNDS; number += 1) {
        const result = await round();
        if (result !== false) return result;
        await this.#clock.sleep(fullJitter(number, BACKOFF));
      }
      throw new Fault({
        code: "unavailable",
        message: "the ports of this realm change faster than this Atlas can read them",
        hint: "Try again.",
      });
    });
  }
}

function puts(table: string, { service, port }: PortReservation): TransactWriteItem[] {
  const content = { service: { S: service }, port: { N: String(port) } };
  return [portOfServiceKey(service), portKey(port)].map((key) => ({
    Put: { TableName: table, Item: { ...key, ...content }, ConditionExpression: "attribute_not_exists(pk)" },
  }));
}

function deletes(table: string, { service, port }: PortReservation): TransactWriteItem[] {
  return [portOfServiceKey(service), portKey(port)].map((key) => ({
    Delete: {
      TableName: table,
      Key: key,
      ConditionExpression: "service = :service AND port = :port",
      ExpressionAttributeValues: { ":service": { S: service }, ":port": { N: String(port) } },
    },
  }));
}
