// A process that writes audit entries until it is killed, telling each that was taken: bun dynamodb-writer.fixture.ts ENDPOINT TABLE DIR NAME
import { DynamoDbMeta } from "./dynamodb.ts";

const [endpoint = "", table = "", dataDir = "", name = ""] = process.argv.slice(2);
const meta = new DynamoDbMeta({ endpoint, region: "us-east-1", table, realm: "test", createTable: false, dataDir });
await meta.open();
for (let number = 0; ; number += 1) {
  const target = `identity/${name}-${number}`;
  const at = new Date().toISOString();
  await meta.addAudit({ at, who: "ann", from: "", kind: "instance.put", target, before: null, after: { number } });
  process.stdout.write(`${target}\n`);
  if (number % 10 === 9) await Bun.sleep(1);
}
