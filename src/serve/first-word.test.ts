import { describe, expect, test } from "bun:test";
import { SidecarProblem } from "../core/api/sidecar-client.ts";
import { fakeClock } from "../core/lib/clock.ts";
import { Fault } from "../core/lib/errors.ts";
import type { SidecarInfo } from "../core/model/local.ts";
import { assume, contradiction, firstWord } from "./first-word.ts";

const info = { realm: "prod", host: "host001", address: "10.0.0.1" } as SidecarInfo;
const starting = new SidecarProblem(503, { code: "unavailable", detail: "the sidecar is starting" }, "GET /v1/info");
const nobody = new Fault({ code: "unreachable", message: "nobody listens there" });

/** A sidecar that gives these answers one after the other, the last of them for ever. */
function sidecar(...answers: readonly (SidecarInfo | Error)[]): { asked: number; info(): Promise<SidecarInfo> } {
  return {
    asked: 0,
    async info() {
      const answer = answers[Math.min(this.asked++, answers.length - 1)];
      if (answer instanceof Error || answer === undefined) throw answer;
      return answer;
    },
  };
}

describe("the sidecar's first word", () => {
  test("is waited for while it is starting, as both are after a reboot", async () => {
    const clock = fakeClock();
    const word = firstWord(sidecar(starting, starting, info), clock);
    await clock.advance(200);
    expect(await word).toBe(info);
  });

  test("is not waited for when there is no sidecar", async () => {
    const none = sidecar(nobody, info);
    expect(await firstWord(none, fakeClock())).toBeUndefined();
    expect(none.asked).toBe(1);
  });

  test("is given up after 10 s", async () => {
    const clock = fakeClock();
    const word = firstWord(sidecar(starting), clock);
    await clock.advance(10_100);
    expect(await word).toBeUndefined();
  });
});

describe("a service that started without its sidecar", () => {
  test("has to start anew when it guessed, and the sidecar knows better", () => {
    const fault = contradiction("realm", assume(undefined, undefined, "local"), "prod");
    expect(fault?.code).toBe("started_too_early");
    expect(fault?.message).toContain("the realm local; the sidecar's is prod");
  });

  test("goes on when it guessed right, was told so, or knew it from the sidecar", () => {
    expect(contradiction("realm", assume(undefined, undefined, "local"), "local")).toBeUndefined();
    expect(contradiction("realm", assume("test", undefined, "local"), "prod")).toBeUndefined();
    expect(contradiction("realm", assume(undefined, "prod", "local"), "prod")).toBeUndefined();
    expect(contradiction("address", assume(undefined, "10.0.0.1", "127.0.0.1"), "10.0.0.2")).toBeUndefined();
  });
});
