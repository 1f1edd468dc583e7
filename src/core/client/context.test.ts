import { expect, test } from "bun:test";
import { childTraceparent, contextOf, currentContext, runInContext } from "./context.ts";

const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

test("deadline, trace and request id are read from an inbound request", () => {
  const headers = new Headers({
    "Smartstack-Timeout-Ms": "1500",
    traceparent: trace,
    tracestate: "a=b",
    "X-Request-Id": "r-1",
  });
  expect(contextOf(headers, 1_000)).toEqual({
    deadlineAt: 2_500,
    traceparent: trace,
    tracestate: "a=b",
    requestId: "r-1",
  });
});

test("what is malformed counts as absent", () => {
  const bad = [
    { "smartstack-timeout-ms": "-5" },
    { "smartstack-timeout-ms": "soon" },
    { "smartstack-timeout-ms": "99999999999" },
    { traceparent: "00-00000000000000000000000000000000-b7ad6b7169203331-01", tracestate: "a=b" },
    { traceparent: "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" },
    { traceparent: "nonsense" },
    { "x-request-id": "a b" },
    { "x-request-id": "x".repeat(129) },
  ];
  for (const headers of bad) expect(contextOf(new Headers(headers as Record<string, string>), 0)).toEqual({});
});

test("a child span keeps the trace and its flags, and has a new id each time", () => {
  const children = Array.from({ length: 1_000 }, () => childTraceparent(trace));
  expect(new Set(children).size).toBe(1_000);
  for (const child of children) {
    expect(child).toMatch(/^00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-01$/);
    expect(child).not.toBe(trace);
  }
});

test("without a caller's trace a new one begins", () => {
  expect(childTraceparent(undefined)).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
});

test("a context belongs to what runs in it, across awaits, and to nothing else", async () => {
  const inside = runInContext({ requestId: "one" }, async () => {
    await Promise.resolve();
    return currentContext()?.requestId;
  });
  expect(currentContext()).toBeUndefined();
  expect(await inside).toBe("one");
});
