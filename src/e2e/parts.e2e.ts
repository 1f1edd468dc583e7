// What scripts/setup --test brought must run here, so that a failure of the cluster store's tests is never a missing part.
import { expect } from "bun:test";
import { scenario } from "./harness.ts";
import { startDynamoDb, startZooKeeper } from "./parts.ts";

scenario("ZooKeeper and DynamoDB Local start, answer and stop", async (world) => {
  const [zookeeper, dynamodb] = await Promise.all([startZooKeeper(world), startDynamoDb(world)]);
  expect(zookeeper.address).toMatch(/^127\.0\.0\.1:\d+$/);
  const answer = await fetch(dynamodb.endpoint, {
    method: "POST",
    headers: {
      "content-type": "application/x-amz-json-1.0",
      "x-amz-target": "DynamoDB_20120810.ListTables",
      // DynamoDB Local wants a signature's form and checks none of it
      authorization:
        "AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0",
    },
    body: "{}",
  });
  expect(await answer.json()).toEqual({ TableNames: [] });
  await zookeeper.process.stop();
  await dynamodb.process.stop();
});
