// What DynamoDB Local cannot be made to answer: throttling, refusals, and whatever else may stand at an endpoint.
import { afterEach, beforeAll, describe, expect, test } from "bun:test";
import { GetItemCommand } from "@aws-sdk/client-dynamodb";
import { systemClock } from "../lib/clock.ts";
import { errorCode, Fault } from "../lib/errors.ts";
import { DynamoDb } from "./dynamodb-client.ts";
import { META_KEY } from "./dynamodb-items.ts";

beforeAll(() => {
  process.env.AWS_ACCESS_KEY_ID = "local";
  process.env.AWS_SECRET_ACCESS_KEY = "local";
});

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

type Fake = { requests: number; db: DynamoDb; get(): Promise<unknown> };

const ok = (): Response => Response.json({ Item: {} }, { headers: { "content-type": "application/x-amz-json-1.0" } });

function refusal(name: string, status = 400): Response {
  return Response.json({ __type: `com.amazonaws.dynamodb.v20120810#${name}`, message: "no" }, { status });
}

/** A server that gives these answers in turn, the last one for ever. */
function serverOf(...answers: readonly (() => Response | Promise<Response>)[]): Fake {
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: () => {
      fake.requests += 1;
      return (answers[fake.requests - 1] ?? answers.at(-1) ?? ok)();
    },
  });
  const db = new DynamoDb({
    table: "table",
    endpoint: `http://127.0.0.1:${server.port}`,
    region: "us-east-1",
    clock: systemClock,
  });
  const fake: Fake = {
    requests: 0,
    db,
    get: () => db.call((client, send) => client.send(new GetItemCommand({ TableName: "table", Key: META_KEY }), send)),
  };
  cleanups.push(() => server.stop(true));
  cleanups.push(() => db.close());
  return fake;
}

async function faultOf(work: Promise<unknown>): Promise<Fault> {
  const error: unknown = await work.then(
    () => new Error("this should have failed"),
    (error: unknown) => error,
  );
  if (error instanceof Fault) return error;
  throw error;
}

describe("a call to DynamoDB", () => {
  test.each(["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"])(
    "is repeated when it is throttled (%s)",
    async (name) => {
      const fake = serverOf(
        () => refusal(name),
        () => refusal(name),
        ok,
      );
      await fake.get();
      expect(fake.requests).toBe(3);
    },
  );

  test("is repeated when the server fails or hangs up, three times at most", async () => {
    const fake = serverOf(() => refusal("InternalServerError", 500));
    expect((await faultOf(fake.get())).code).toBe("unavailable");
    expect(fake.requests).toBe(3);
  });

  test("that throttling goes on with says so", async () => {
    const fault = await faultOf(serverOf(() => refusal("ThrottlingException")).get());
    expect([fault.code, fault.message]).toEqual(["unavailable", expect.stringContaining("too busy")]);
  });

  test.each(["AccessDeniedException", "UnrecognizedClientException", "ExpiredTokenException"])(
    "is not repeated when the right is missing (%s), and says what to look at",
    async (name) => {
      const fake = serverOf(() => refusal(name));
      const { code, hint } = await faultOf(fake.get());
      expect([code, fake.requests]).toEqual(["unavailable", 1]);
      expect(hint).toContain("docs/storage.md");
    },
  );

  test("that DynamoDB finds wrong is our mistake, and no outage", async () => {
    const fake = serverOf(() => refusal("ValidationException"));
    fake.db.watch();
    expect((await faultOf(fake.get())).code).toBe("store_refused");
    expect([fake.requests, fake.db.trouble()]).toEqual([1, undefined]);
  });

  test("answered by something that is no DynamoDB fails as an outage", async () => {
    const page = (): Response => new Response("<html>log in</html>", { headers: { "content-type": "text/html" } });
    expect((await faultOf(serverOf(page).get())).code).toBe("unavailable");
  });

  test("ends when Atlas stops", async () => {
    const never = serverOf(() => new Promise<Response>(() => undefined));
    const call = faultOf(never.get());
    while (never.requests === 0) await Bun.sleep(1);
    never.db.close();
    expect((await call).message).toBe("Atlas is stopping");
  });
});

describe("DynamoDB that is away", () => {
  test("is not asked again by those who call, and is found when it is back", async () => {
    let away = true;
    const fake = serverOf(() => (away ? refusal("ServiceUnavailable", 503) : ok()));
    fake.db.watch();
    await faultOf(fake.get());
    const asked = fake.requests;
    expect(errorCode(await faultOf(fake.get()))).toBe("unavailable");
    expect(fake.requests).toBe(asked);
    expect(fake.db.trouble()).toContain("does not answer");
    away = false;
    const deadline = Date.now() + 5_000;
    while (fake.db.trouble() !== undefined && Date.now() < deadline) await Bun.sleep(20);
    expect(fake.db.trouble()).toBeUndefined();
    await fake.get();
  });

  test("says so in its newest form", async () => {
    let reason = "InternalServerError";
    const fake = serverOf(() => refusal(reason, reason === "InternalServerError" ? 500 : 400));
    fake.db.watch();
    await faultOf(fake.get());
    reason = "AccessDeniedException";
    const deadline = Date.now() + 5_000;
    while (fake.db.trouble()?.includes("does not let") !== true && Date.now() < deadline) await Bun.sleep(20);
    expect(fake.db.trouble()).toContain("does not let this Atlas use the table");
  });
});
