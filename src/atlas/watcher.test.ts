import { describe, expect, test } from "bun:test";
import { fakeClock } from "../core/lib/clock.ts";
import { type StreamEnd, Watcher } from "./watcher.ts";

function watch(first = "first") {
  const clock = fakeClock();
  const ends: StreamEnd[] = [];
  const watcher = new Watcher({ clock, first: new TextEncoder().encode(first), onEnd: (end) => ends.push(end) });
  return { clock, ends, watcher };
}
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

describe("a stream", () => {
  test("carries what is sent, and its end with the reason", async () => {
    const { watcher, ends } = watch();
    watcher.send(text(" second "));
    watcher.end("enough");
    watcher.send(text("never"));
    watcher.end("again");
    const body = await new Response(watcher.body).text();
    expect(body).toBe('first second event: end\ndata: {"reason":"enough"}\n\n');
    expect(ends).toEqual([{ by: "atlas", reason: "enough" }]);
  });

  test("is over when its reader goes", async () => {
    const { watcher, ends } = watch();
    await watcher.body.cancel();
    watcher.send(text("never"));
    expect(ends.map(({ by }) => by)).toEqual(["reader"]);
  });

  test("is cut off when more than a megabyte behind its first event is unsent", async () => {
    const { watcher, ends } = watch("x".repeat(3_000_000));
    const chunk = text("x".repeat(100_000));
    for (let sent = 0; sent < 10; sent += 1) watcher.send(chunk);
    expect(ends).toEqual([]);
    watcher.send(chunk);
    expect(ends.map(({ by }) => by)).toEqual(["slow"]);
    // what was unsent is dropped, not kept for a reader that may never come
    expect(await new Response(watcher.body).text().catch((error: unknown) => String(error))).toContain("unsent");
  });

  test("is cut off when anything is unsent for half a minute, and not before", async () => {
    const { watcher, ends, clock } = watch();
    watcher.send(text("a"));
    await clock.advance(30_000);
    watcher.send(text("b"));
    expect(ends).toEqual([]);
    await clock.advance(1);
    watcher.send(text("c"));
    expect(ends).toEqual([{ by: "slow", reason: "7 bytes were unsent for 30 s" }]);
  });

  test("that is read never counts as stalled", async () => {
    const { watcher, ends, clock } = watch();
    const reader = watcher.body.getReader();
    await reader.read();
    for (let beat = 0; beat < 20; beat += 1) {
      watcher.send(text("beat"));
      await reader.read();
      await clock.advance(5_000);
    }
    expect(ends).toEqual([]);
  });
});
