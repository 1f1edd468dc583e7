// Reading a partition: DynamoDB answers with at most a MiB at a time, and nobody may take that for all there is.
import { QueryCommand } from "@aws-sdk/client-dynamodb";
import type { DynamoDb } from "./dynamodb-client.ts";
import type { Item } from "./dynamodb-items.ts";

/** @default every item of the partition, by ascending sort key */
export type QueryOptions = {
  /** Only items whose sort key begins so. */
  readonly prefix?: string;
  /** The last ones first, and so many at most. */
  readonly newest?: number;
};

/** The items of a partition as they are now: reads are strongly consistent. @throws Fault `unavailable` */
export async function query(db: DynamoDb, pk: string, { prefix, newest }: QueryOptions = {}): Promise<Item[]> {
  const enough = newest ?? Number.POSITIVE_INFINITY;
  const found: Item[] = [];
  let from: Item | undefined;
  do {
    const start = from;
    const { Items = [], LastEvaluatedKey } = await db.call((client, send) =>
      client.send(
        new QueryCommand({
          TableName: db.table,
          KeyConditionExpression: prefix === undefined ? "pk = :pk" : "pk = :pk AND begins_with(sk, :prefix)",
          ExpressionAttributeValues: {
            ":pk": { S: pk },
            ...(prefix === undefined ? {} : { ":prefix": { S: prefix } }),
          },
          ConsistentRead: true,
          ...(newest === undefined ? {} : { ScanIndexForward: false, Limit: newest - found.length }),
          ...(start === undefined ? {} : { ExclusiveStartKey: start }),
        }),
        send,
      ),
    );
    found.push(...Items);
    from = LastEvaluatedKey;
  } while (from !== undefined && found.length < enough);
  return found;
}
