// Whose table this is: made when asked for, and taken only when it is this realm's. Nothing is written to any other.
import {
  CreateTableCommand,
  DescribeTableCommand,
  DescribeTimeToLiveCommand,
  GetItemCommand,
  PutItemCommand,
  ScanCommand,
  type TableDescription,
  UpdateTimeToLiveCommand,
} from "@aws-sdk/client-dynamodb";
import type { Clock } from "../lib/clock.ts";
import { errorCode, Fault } from "../lib/errors.ts";
import { type DynamoDb, isConditionFailed, isTableMissing } from "./dynamodb-client.ts";
import { type Item, META_KEY, number, SCHEMA, text } from "./dynamodb-items.ts";

export type TableOptions = {
  readonly realm: string;
  /** Makes the table, or takes an empty one that somebody else made. */
  readonly create: boolean;
  readonly clock: Clock;
};

/** AWS takes about ten seconds. */
const ACTIVE_MS = 60_000;
const POLL_MS = 250;

/**
 * Opens the realm's table. Two who create it at once end with one table.
 * @throws Fault `store_missing`, `store_foreign`, `store_realm`, `store_newer`, `unavailable`
 */
export async function openTable(db: DynamoDb, options: TableOptions): Promise<void> {
  let found = await describe(db);
  if (found === undefined) {
    if (!options.create) {
      throw new Fault({
        code: "store_missing",
        message: `DynamoDB has no table ${db.table}`,
        hint: "Add --dynamodb-create-table to this command to create it, or name another with --dynamodb-table.",
      });
    }
    await create(db);
    found = await describe(db);
  }
  if (found !== undefined && !hasOurKeys(found)) throw foreign(db, "its keys are not pk and sk, both text");
  await untilActive(db, options.clock);
  const owner = (await readOwner(db)) ?? (await claim(db, options));
  checkOwner(db, owner, options.realm);
}

async function describe(db: DynamoDb): Promise<TableDescription | undefined> {
  try {
    const { Table } = await db.call((client, send) =>
      client.send(new DescribeTableCommand({ TableName: db.table }), send),
    );
    return Table;
  } catch (error) {
    if (isTableMissing(error)) return undefined;
    throw error;
  }
}

async function create(db: DynamoDb): Promise<void> {
  try {
    await db.call((client, send) =>
      client.send(
        new CreateTableCommand({
          TableName: db.table,
          BillingMode: "PAY_PER_REQUEST",
          // it holds the only copy of every definition
          DeletionProtectionEnabled: true,
          KeySchema: [
            { AttributeName: "pk", KeyType: "HASH" },
            { AttributeName: "sk", KeyType: "RANGE" },
          ],
          AttributeDefinitions: [
            { AttributeName: "pk", AttributeType: "S" },
            { AttributeName: "sk", AttributeType: "S" },
          ],
        }),
        send,
      ),
    );
  } catch (error) {
    // another replica was first, or an earlier attempt of ours
    if (!(error instanceof Error && error.name === "ResourceInUseException")) throw error;
  }
}

function hasOurKeys({ KeySchema = [], AttributeDefinitions = [] }: TableDescription): boolean {
  const keys = KeySchema.map(({ AttributeName, KeyType }) => `${AttributeName} ${KeyType}`).sort();
  const types = new Map(AttributeDefinitions.map(({ AttributeName, AttributeType }) => [AttributeName, AttributeType]));
  return keys.join() === "pk HASH,sk RANGE" && types.get("pk") === "S" && types.get("sk") === "S";
}

async function untilActive(db: DynamoDb, clock: Clock): Promise<void> {
  const deadline = performance.now() + ACTIVE_MS;
  for (;;) {
    const status = (await describe(db))?.TableStatus;
    // a table whose billing or indexes change serves on
    if (status === "ACTIVE" || status === "UPDATING") return;
    if (performance.now() > deadline || status === "DELETING") {
      throw new Fault({
        code: "unavailable",
        message: `the table ${db.table} is ${status ?? "gone"}, not ACTIVE`,
        hint: "Look at it in the console of AWS, then start Atlas again.",
      });
    }
    await clock.sleep(POLL_MS);
  }
}

async function readOwner(db: DynamoDb): Promise<Item | undefined> {
  const { Item } = await db.call((client, send) =>
    client.send(new GetItemCommand({ TableName: db.table, Key: META_KEY, ConsistentRead: true }), send),
  );
  return Item;
}

/** Writes the record of ownership into an empty table. It comes last, so that a table that has one is complete. */
async function claim(db: DynamoDb, { realm, create, clock }: TableOptions): Promise<Item> {
  const { Items = [] } = await db.call((client, send) =>
    client.send(new ScanCommand({ TableName: db.table, Limit: 1, ConsistentRead: true }), send),
  );
  if (Items.length > 0) {
    // somebody may have claimed it between the two reads
    const owner = await readOwner(db);
    if (owner !== undefined) return owner;
    throw foreign(db, "it holds items, but no record of smartstack");
  }
  if (!create) {
    throw new Fault({
      code: "store_missing",
      message: `the table ${db.table} is empty and nobody's`,
      hint: "Add --dynamodb-create-table to this command to let the realm have it.",
    });
  }
  await expireItems(db);
  const owner: Item = {
    ...META_KEY,
    realm: { S: realm },
    schema: { N: String(SCHEMA) },
    created: { S: new Date(clock.now()).toISOString() },
  };
  try {
    await db.call((client, send) =>
      client.send(
        new PutItemCommand({ TableName: db.table, Item: owner, ConditionExpression: "attribute_not_exists(pk)" }),
        send,
      ),
    );
  } catch (error) {
    if (!isConditionFailed(error)) throw error;
  }
  return (await readOwner(db)) ?? owner;
}

async function expireItems(db: DynamoDb): Promise<void> {
  const { TimeToLiveDescription } = await db.call((client, send) =>
    client.send(new DescribeTimeToLiveCommand({ TableName: db.table }), send),
  );
  if (TimeToLiveDescription?.TimeToLiveStatus?.startsWith("ENABL") === true) return;
  try {
    await db.call((client, send) =>
      client.send(
        new UpdateTimeToLiveCommand({
          TableName: db.table,
          TimeToLiveSpecification: { Enabled: true, AttributeName: "expires" },
        }),
        send,
      ),
    );
  } catch (error) {
    // a second replica that creates the same table did it meanwhile
    if (errorCode(error) !== "store_refused") throw error;
  }
}

function checkOwner(db: DynamoDb, owner: Item, realm: string): void {
  const theirs = text(owner, "realm");
  if (theirs !== realm) {
    throw new Fault({
      code: "store_realm",
      message: `the table ${db.table} belongs to the realm ${theirs}, not ${realm}`,
      hint: "Every realm has a table of its own: see --dynamodb-table and --realm.",
    });
  }
  const schema = number(owner, "schema");
  if (schema > SCHEMA) {
    throw new Fault({
      code: "store_newer",
      message: `the table ${db.table} was written by a newer smartstack (schema ${schema}, this one knows ${SCHEMA})`,
      hint: "Run the newer version.",
    });
  }
}

function foreign(db: DynamoDb, why: string): Fault {
  return new Fault({
    code: "store_foreign",
    message: `the table ${db.table} is not smartstack's: ${why}`,
    hint: "Nothing was written to it. Name another with --dynamodb-table.",
  });
}
