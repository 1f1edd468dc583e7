import { expect, test } from "bun:test";
import { verdictOf } from "./validate.ts";

const lines = new Map<string, readonly [number, number]>([
  ["ads", [80, 95]],
  ["identity", [96, 112]],
]);

test("a complaint about a line is a complaint about the service that owns the line", () => {
  const output = `[NOTICE]   (1) : haproxy version is 2.6.12
[ALERT]    (1) : config : parsing [/tmp/x/haproxy.cfg:97] : 'server host001' : 'rise' has to be > 0.
[ALERT]    (1) : config : Error(s) found in configuration file : /tmp/x/haproxy.cfg`;
  expect(verdictOf(output, lines)).toEqual({
    kind: "blamed",
    services: new Map([["identity", "line 97: 'server host001' : 'rise' has to be > 0."]]),
  });
});

test("a complaint that only names a backend finds its service too", () => {
  const output = "[ALERT]    (1) : config : backend 'ads-backend' : something is wrong";
  expect(verdictOf(output, lines)).toMatchObject({ kind: "blamed" });
});

test("any other complaint is nobody's", () => {
  const output = "[ALERT]    (1) : config : parsing [/tmp/x/haproxy.cfg:3] : unknown keyword 'x'";
  expect(verdictOf(output, lines)).toEqual({ kind: "invalid", error: "line 3: unknown keyword 'x'" });
  expect(verdictOf("killed", lines)).toEqual({ kind: "invalid", error: "killed" });
});
