import { describe, expect, test } from "bun:test";
import { lossOf, requestPlaces } from "./transport.ts";

const coded = (code: string, cause?: unknown): Error => Object.assign(new TypeError("some words", { cause }), { code });

describe("what a failed fetch says", () => {
  const cases: [string, unknown, ReturnType<typeof lossOf>["kind"], "no" | "maybe", boolean][] = [
    ["refused, as Bun says since 1.4", coded("ECONNREFUSED"), "connect", "no", true],
    ["refused, as Bun said before", coded("ConnectionRefused"), "connect", "no", true],
    ["refused, as Node says", new TypeError("fetch failed", { cause: coded("ECONNREFUSED") }), "connect", "no", true],
    [
      "refused on both of localhost's addresses",
      new TypeError("fetch failed", { cause: new AggregateError([coded("ECONNREFUSED"), coded("ECONNREFUSED")]) }),
      "connect",
      "no",
      true,
    ],
    ["no such name", coded("ENOTFOUND"), "connect", "no", true],
    ["a certificate nobody vouches for", coded("DEPTH_ZERO_SELF_SIGNED_CERT"), "connect", "no", false],
    ["reset", coded("ECONNRESET"), "connection", "maybe", true],
    [
      "closed, as Node says",
      new TypeError("fetch failed", { cause: coded("UND_ERR_SOCKET") }),
      "connection",
      "maybe",
      true,
    ],
    ["anything else", new Error("ECONNREFUSED, says the message alone"), "connection", "maybe", true],
  ];
  for (const [name, error, kind, sent, transient] of cases) {
    test(name, () => expect(lossOf(error)).toMatchObject({ kind, sent, transient }));
  }
});

test("places stay below the runtime's limit, whatever it was started with", () => {
  expect(requestPlaces({})).toBe(240);
  expect(requestPlaces({ BUN_CONFIG_MAX_HTTP_REQUESTS: "16384" })).toBe(16_368);
  expect(requestPlaces({ BUN_CONFIG_MAX_HTTP_REQUESTS: "10" })).toBe(9);
  expect(requestPlaces({ BUN_CONFIG_MAX_HTTP_REQUESTS: "many" })).toBe(240);
});
