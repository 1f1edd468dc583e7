import { expect, test } from "bun:test";
import { normal, printed, stepsOf } from "./page.ts";

const HOSTS = ["host001", "host002"];
const block = (kind: string, ...lines: readonly string[]): string =>
  ["", `\`\`\`${kind}`, ...lines, "```", ""].join("\n");

test("blocks become steps, in order, each on its hosts", () => {
  const page = [
    "# Page",
    block("sh", "# every host: because", "echo a"),
    block("sh", "# host001, host002, one after the other", "echo b"),
    block("console", "host002$ echo c", "c", "host001$ true"),
    block("text", "a ── b"),
  ].join("\n");
  expect(stepsOf(page, HOSTS)).toEqual([
    { kind: "script", line: 3, hosts: HOSTS, inTurn: false, script: "# every host: because\necho a" },
    { kind: "script", line: 9, hosts: HOSTS, inTurn: true, script: "# host001, host002, one after the other\necho b" },
    { kind: "example", line: 16, host: "host002", command: "echo c", output: "c" },
    { kind: "example", line: 18, host: "host001", command: "true", output: "" },
  ]);
});

test("no block goes without being run", () => {
  const bad = [
    block("", "smartstack status"),
    block("yaml", "listen: x"),
    block("text", "$ smartstack status"),
    block("sh", "smartstack status"),
    block("sh", "# host009", "true"),
    block("console", "$ true"),
    block("console", "host009$ true"),
    "```sh\n# host001\ntrue",
  ];
  for (const page of bad) expect(() => stepsOf(page, HOSTS)).toThrow(/^line \d+: /);
});

test("output is compared without what differs from run to run", () => {
  expect(normal("revision 12 · p99 7 ms\nhost001   3   0 \n")).toBe("revision N\nhost001 3 0");
  expect(printed("a … c\n…\nend", "a b b c\nx\ny\nend\n")).toBe(true);
  expect(printed("a … c\n…\nend", "a c\nend\n")).toBe(false);
  expect(printed("took 3 ms", "took 14 ms")).toBe(true);
  expect(printed("a.c", "abc")).toBe(false);
  expect(printed("", "")).toBe(true);
  expect(printed("", "oops")).toBe(false);
});
