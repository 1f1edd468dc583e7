import { expect, test } from "bun:test";
import { errorCode } from "../core/lib/errors.ts";
import { ProblemFault } from "../core/lib/http.ts";
import { Limits } from "./limits.ts";

/** Enters until refused; returns how to leave, and what refused. */
function fill(enter: () => () => void): { leaves: (() => void)[]; refusal: unknown } {
  const leaves: (() => void)[] = [];
  for (;;) {
    try {
      leaves.push(enter());
    } catch (refusal) {
      return { leaves, refusal };
    }
  }
}

test("an address has a share of the requests, and gets it back as they are answered", () => {
  const limits = new Limits();
  const { leaves, refusal } = fill(() => limits.request("10.0.0.1"));
  expect([leaves.length, errorCode(refusal)]).toEqual([256, "unavailable"]);
  expect(refusal instanceof ProblemFault && refusal.headers).toEqual({ "retry-after": "1" });
  limits.request("10.0.0.2")();
  leaves[0]?.();
  // leaving twice gives nothing back twice
  leaves[0]?.();
  limits.request("10.0.0.1");
  expect(() => limits.request("10.0.0.1")).toThrow("10.0.0.1 has 256 requests open");
});

test("all addresses together, loopback included, have a limit too", () => {
  const limits = new Limits();
  const { leaves } = fill(() => limits.request("127.0.0.1"));
  expect(leaves).toHaveLength(1_024);
  expect(() => limits.request("10.0.0.1")).toThrow("this Atlas has 1024 requests open");
});

test("readers of streams leave a quarter to agents", () => {
  const limits = new Limits();
  expect(fill(() => limits.stream("127.0.0.1", "reader")).leaves).toHaveLength(7_500);
  expect(fill(() => limits.stream("127.0.0.1", "agent")).leaves).toHaveLength(2_500);
  const others = new Limits();
  expect(fill(() => others.stream("10.0.0.1", "reader")).leaves).toHaveLength(1_024);
});
