import { describe, expect, test } from "bun:test";
import { randomOf } from "../core/lib/random.fixture.ts";
import { formatToken, hashToken, isTokenName, parseTokens, ROLES, type Token } from "./tokens.ts";

const hash = (text: string): string => hashToken(text);
describe("the file of tokens", () => {
  test("has a token a line; comments, blank lines, a byte order mark and Windows' line ends are nothing", () => {
    const text = `\uFEFF# ours\r\n\r\nadmin ann ${hash("a").toUpperCase()}\r\n  agent\thost001  ${hash("b")} host001.example\n#\n`;
    expect(parseTokens(text)).toEqual({
      tokens: [
        { role: "admin", name: "ann", hash: hash("a") },
        { role: "agent", name: "host001", hash: hash("b"), host: "host001.example" },
      ],
      problems: [],
    });
  });

  test.each([
    ["boss ann HASH", "begins with a role"],
    ["Admin ann HASH", "begins with a role"],
    ["admin", "a token's name is"],
    ["admin -ann HASH", "a token's name is"],
    ["admin atlas HASH", "are taken"],
    ["admin Anonymous HASH", "are taken"],
    ["admin ann", "SHA-256"],
    ["admin ann HASH0", "SHA-256"],
    ["admin ann HASH host001", "only an agent's token belongs to a host"],
    ["agent ann HASH", "ends with its host"],
    ["agent ann HASH not_a/host", "ends with its host"],
    ["agent ann HASH host001 host002", "nothing more"],
  ])("a line %p is refused: %s", (line, message) => {
    const { tokens, problems } = parseTokens(`# first\n${line.replace("HASH", hash("a"))}\n`);
    expect([tokens, problems]).toEqual([[], [{ line: 2, message: expect.stringContaining(message) }]]);
  });

  test("two of a name, or two of a token, are told with the line of the first", () => {
    const text = [`read a ${hash("1")}`, `read a ${hash("2")}`, `deploy b ${hash("1")}`].join("\n");
    expect(parseTokens(text).problems).toEqual([
      { line: 2, message: "the name stands in line 1 already; every token has its own" },
      { line: 3, message: "the same token stands in line 1 already" },
    ]);
  });

  test("without any token is a problem of its own", () => {
    expect(parseTokens("# nobody\n\n").problems).toMatchObject([{ line: 1, empty: true }]);
  });

  test("no message repeats what stood there: it may be a token in the wrong place", () => {
    const secret = "smst_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";
    for (const line of [secret, `admin ${secret}`, `admin ann ${secret}`, `agent ann ${hash("a")} ${secret}/`])
      for (const { message } of parseTokens(line).problems) expect(message).not.toContain(secret.slice(5));
  });

  test("garbage is problems, line by line, and never an exception", () => {
    const numbers = randomOf(7);
    const random = (): number => numbers(1);
    const words = [
      ...ROLES,
      "ann",
      "#",
      "host001",
      hash("x"),
      "",
      "\u0000",
      "\u2028",
      "🎈",
      "a".repeat(300),
      "%",
      "::1",
    ];
    for (let round = 0; round < 3_000; round += 1) {
      const lines = Array.from({ length: Math.floor(random() * 6) }, () =>
        Array.from({ length: Math.floor(random() * 6) }, () =>
          random() < 0.8
            ? words[Math.floor(random() * words.length)]
            : String.fromCodePoint(Math.floor(random() * 0x1_0000)),
        ).join(random() < 0.9 ? " " : "\t"),
      );
      const { tokens, problems } = parseTokens(lines.join(random() < 0.5 ? "\n" : "\r\n"));
      const content = lines.flatMap((line) => line.split("\n")).filter((line) => !/^\s*(#|$)/.test(line));
      // every line that says something is a token or a problem, or both when it is one too many of its name
      expect(tokens.length + problems.length).toBeGreaterThanOrEqual(content.length === 0 ? 1 : content.length);
      for (const token of tokens) expect(parseTokens(formatToken(token)).tokens).toEqual([token]);
    }
  });

  test("what is written is what is read", () => {
    const numbers = randomOf(11);
    const random = (): number => numbers(1);
    const letters = "abcXYZ019._-@";
    const name = (): string => Array.from({ length: 8 }, () => letters[Math.floor(random() * letters.length)]).join("");
    for (let round = 0; round < 500; round += 1) {
      const role = ROLES[Math.floor(random() * ROLES.length)] ?? "read";
      const token: Token = {
        role,
        name: name(),
        hash: hash(String(round)),
        ...(role === "agent" ? { host: `host${round}` } : {}),
      };
      const { tokens, problems } = parseTokens(formatToken(token));
      expect(isTokenName(token.name) ? tokens : problems.length).toEqual(isTokenName(token.name) ? [token] : 1);
    }
  });
});
