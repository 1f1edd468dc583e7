// The file of tokens that Atlas knows: lines `ROLE NAME SHA256HEX [HOST]`. A token itself is never stored: whoever reads the
// file can take nobody's place.
import { createHash } from "node:crypto";
import { hostName } from "../core/model/names.ts";

export const ROLES = ["read", "agent", "deploy", "admin"] as const;
export type Role = (typeof ROLES)[number];

/** One line of the file. */
export type Token = {
  readonly role: Role;
  /** Who writes, as the audit trail will say. */
  readonly name: string;
  /** SHA-256 of the token, 64 lower-case hexadecimal digits. */
  readonly hash: string;
  /** The host of an agent; no other role has one. */
  readonly host?: string;
};

/** `empty`: the file as a whole, which holds no token. */
export type TokenProblem = { readonly line: number; readonly message: string; readonly empty?: true };

/** What stands in the audit trail where no token does. */
const TAKEN_NAMES = ["atlas", "anonymous"];
const NAME = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$/;
const NAME_RULE = "1 to 63 of letters, digits and . _ @ -, and begins with a letter or digit";

/** SHA-256 of a token, as it stands in the file. */
export function hashToken(token: string): string {
  return createHash("sha256").update(token).digest("hex");
}

export function isTokenName(name: string): boolean {
  return NAME.test(name) && !TAKEN_NAMES.includes(name.toLowerCase());
}

/** Why a name is none, for messages. */
export const tokenNameRule = `a token's name is ${NAME_RULE}; ${TAKEN_NAMES.join(" and ")} are taken`;

/** The token as its line in the file. */
export function formatToken({ role, name, hash, host }: Token): string {
  return [role, name, hash, ...(host === undefined ? [] : [host])].join(" ");
}

/**
 * Reads the file: one token a line, blank lines and lines that begin with `#` are for people. Never throws. No problem repeats
 * what stands in the file: somebody may have put a token where its hash belongs.
 */
export function parseTokens(text: string): {
  readonly tokens: readonly Token[];
  readonly problems: readonly TokenProblem[];
} {
  const tokens: Token[] = [];
  const problems: TokenProblem[] = [];
  const names = new Map<string, number>();
  const hashes = new Map<string, number>();
  for (const [index, raw] of text
    .replace(/^\uFEFF/, "")
    .split("\n")
    .entries()) {
    const line = index + 1;
    const content = raw.trim();
    if (content === "" || content.startsWith("#")) continue;
    const token = parseLine(content);
    const problem = typeof token === "string" ? token : doubleOf(token, names, hashes);
    if (problem !== undefined) problems.push({ line, message: problem });
    if (typeof token === "string") continue;
    tokens.push(token);
    names.set(token.name, names.get(token.name) ?? line);
    hashes.set(token.hash, hashes.get(token.hash) ?? line);
  }
  if (tokens.length === 0 && problems.length === 0) {
    const message = "there is no token in it, so nobody could do anything; smartstack token create makes one";
    problems.push({ line: 1, message, empty: true });
  }
  return { tokens, problems };
}

/** A line as a token, or what is wrong with it. */
function parseLine(content: string): Token | string {
  const [role = "", name = "", hash = "", host, ...more] = content.split(/\s+/);
  if (!isRole(role)) return `a line begins with a role, one of ${ROLES.join(", ")}`;
  if (!isTokenName(name)) return tokenNameRule;
  if (!/^[0-9a-fA-F]{64}$/.test(hash)) {
    return "the third word is the SHA-256 of a token, 64 hexadecimal digits; smartstack token create writes such a line";
  }
  if (more.length > 0) return "a line is ROLE NAME SHA256HEX, with HOST behind it for an agent, and nothing more";
  if (role !== "agent") {
    return host === undefined
      ? { role, name, hash: hash.toLowerCase() }
      : `only an agent's token belongs to a host, not the role ${role}`;
  }
  if (host === undefined || !hostName.safeParse(host).success) {
    return "an agent's token ends with its host, a DNS name or an IP address";
  }
  return { role, name, hash: hash.toLowerCase(), host };
}

function doubleOf(
  { name, hash }: Token,
  names: ReadonlyMap<string, number>,
  hashes: ReadonlyMap<string, number>,
): string | undefined {
  if (names.has(name)) return `the name stands in line ${names.get(name)} already; every token has its own`;
  return hashes.has(hash) ? `the same token stands in line ${hashes.get(hash)} already` : undefined;
}

function isRole(text: string): text is Role {
  return (ROLES as readonly string[]).includes(text);
}
