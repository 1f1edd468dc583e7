import { describe, expect, test } from "bun:test";
import { DEFAULTS } from "./options.ts";
import { type Failed, mayRetry, parseRetryAfter, type Repeatable } from "./retry.ts";

const get: Repeatable = { method: "GET", keyed: false, replayable: true };
const post: Repeatable = { method: "POST", keyed: false, replayable: true };
const keyedPost: Repeatable = { method: "POST", keyed: true, replayable: true };
const streamedPut: Repeatable = { method: "PUT", keyed: false, replayable: false };

const failed = (kind: Failed["kind"], sent: Failed["sent"], status?: number): Failed => ({
  kind,
  sent,
  status,
  transient: true,
});

// failure, GET, POST, POST with a key, PUT with a stream
const table: [string, Failed, boolean, boolean, boolean, boolean][] = [
  ["connection refused", failed("connect", "no"), true, true, true, false],
  ["connection lost after sending began", failed("connection", "maybe"), true, false, true, false],
  ["connection lost while the answer came", failed("connection", "yes"), true, false, true, false],
  ["attempt timed out", failed("timeout", "maybe"), true, false, true, false],
  ["HAProxy knows no such service", failed("unknown_service", "no", 404), true, true, true, false],
  ["HAProxy knows no usable instance", failed("no_instance", "no", 503), true, true, true, false],
  ["the service's own 404", failed("status", "yes", 404), false, false, false, false],
  ["429", failed("status", "yes", 429), true, false, true, false],
  ["500", failed("status", "yes", 500), false, false, false, false],
  ["502", failed("status", "yes", 502), true, false, true, false],
  ["503", failed("status", "yes", 503), true, false, true, false],
  ["504", failed("status", "yes", 504), true, false, true, false],
  ["aborted by the caller", failed("aborted", "maybe"), false, false, false, false],
  ["redirected away", failed("redirect", "yes"), false, false, false, false],
  ["too large", failed("response_too_large", "yes"), false, false, false, false],
  ["not JSON", failed("bad_answer", "yes"), false, false, false, false],
  ["breaker open", failed("circuit_open", "no"), false, false, false, false],
  ["bulkhead full", failed("bulkhead_full", "no"), false, false, false, false],
];

describe("who may be sent again", () => {
  for (const [name, failure, ...expected] of table) {
    test(name, () => {
      const decided = [get, post, keyedPost, streamedPut].map((request) => mayRetry(failure, request, DEFAULTS.retry));
      expect(decided).toEqual(expected);
    });
  }

  test("PUT, DELETE, HEAD and OPTIONS are as safe as GET, PATCH as unsafe as POST", () => {
    const lost = failed("connection", "maybe");
    const decided = ["PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"].map((method) =>
      mayRetry(lost, { ...get, method }, DEFAULTS.retry),
    );
    expect(decided).toEqual([true, true, true, true, false]);
  });

  test("a certificate that is not trusted is not asked again", () => {
    expect(mayRetry({ ...failed("connect", "no"), transient: false }, get, DEFAULTS.retry)).toBe(false);
  });
});

describe("Retry-After", () => {
  const now = Date.parse("Fri, 10 Apr 2015 12:00:00 GMT");
  const cases: [string | null, number | undefined][] = [
    [null, undefined],
    ["0", 0],
    ["3", 3_000],
    [" 120 ", 120_000],
    ["Fri, 10 Apr 2015 12:00:05 GMT", 5_000],
    ["Fri, 10 Apr 2015 11:59:00 GMT", 0],
    ["-1", undefined],
    ["1.5", undefined],
    ["soon", undefined],
    ["2015", 2_015_000],
    ["", undefined],
  ];
  for (const [value, expected] of cases) {
    test(`${JSON.stringify(value)} is ${expected} ms`, () => expect(parseRetryAfter(value, now)).toBe(expected));
  }
});
