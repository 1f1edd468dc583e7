import { describe, expect, test } from "bun:test";
import { readSse } from "../core/lib/sse.ts";
import { ask, atlas, useAtlas, watch } from "./fixture-http.ts";

useAtlas();

/** The stream that another replica would follow; `next` waits for the next event of a kind. */
async function follow() {
  const ending = new AbortController();
  const response = await fetch(`${atlas.url}/v1/peer/feed?replica=test`, { signal: ending.signal });
  if (response.body === null) throw new Error("no body");
  const events = readSse(response.body);
  const next = async (kind: string): Promise<unknown> => {
    for (;;) {
      const { value, done } = await events.next();
      if (done) throw new Error("the stream ended");
      if (value.event === kind) return JSON.parse(value.data);
    }
  };
  return { response, next, close: () => ending.abort() };
}

describe("what another replica is told", () => {
  test("who this is, the acks that came here, what is waited for, and whom an operator gave up", async () => {
    await watch("?agent=h1&boot=b1");
    const { body } = await ask("PUT", "/v1/services/identity/instances/x", { port: 5000 });
    const { generation, revision } = body as { generation: number; revision: number };
    await ask("POST", "/v1/agents/h1/acks", { generation, revision });
    const feed = await follow();
    expect(feed.response.headers.get("content-type")).toBe("text/event-stream");
    expect(await feed.next("hello")).toEqual({
      replica: "embedded",
      waits: { writes: 0, positions: [] },
      holds: false,
      acks: [{ host: "h1", boot: "b1", generation, revision, rejected: [] }],
    });

    const waiting = ask("PATCH", "/v1/services/identity/instances/x?wait=applied", { weight: 7 });
    expect(await feed.next("state")).toMatchObject({ waits: { writes: 1, positions: [] } });
    const position = { generation, revision: revision + 1 };
    expect(await feed.next("state")).toMatchObject({ waits: { writes: 0, positions: [position] } });
    await ask("POST", "/v1/agents/h1/acks", position);
    expect(await feed.next("acks")).toEqual([{ host: "h1", boot: "b1", ...position, rejected: [] }]);
    expect((await waiting).body).toMatchObject({ applied: 1, total: 1 });
    expect(await feed.next("state")).toMatchObject({ waits: { writes: 0, positions: [] } });

    await ask("DELETE", "/v1/agents/h9");
    expect(await feed.next("forgotten")).toEqual({ host: "h9" });
    expect(await feed.next("heartbeat")).toEqual({});
    feed.close();
  });

  test("the boot of the agent that is live here", async () => {
    expect((await ask("GET", "/v1/peer/agents/h2")).body).toEqual({ boot: null });
    const stream = await watch("?agent=h2&boot=b2");
    expect((await ask("GET", "/v1/peer/agents/h2")).body).toEqual({ boot: "b2" });
    stream.close();
  });
});
