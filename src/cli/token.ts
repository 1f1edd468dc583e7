// token create, list and revoke: the file of tokens that Atlas knows, on Atlas's own host.
import { randomBytes } from "node:crypto";
import { open, readFile, rm, stat } from "node:fs/promises";
import { writeFileAtomic } from "../core/lib/atomic-file.ts";
import { describeError, errorCode, Fault } from "../core/lib/errors.ts";
import { type Command, defineCommand, usageError } from "./command.ts";
import { ConfigError } from "../core/lib/config-error.ts";
import { formatSource, type Source } from "./config.ts";
import { EXIT } from "./exit-codes.ts";
import { flagOnly, host, oneOf, option, path, shared, text } from "./options.ts";
import { answer, print } from "./output.ts";
import { formatTable } from "./table.ts";

/** So that scanners for secrets find one that lies where it should not. */
const PREFIX = "smst_";
const RANDOM_BYTES = 32;

const file = option(path(), "the file of tokens, Atlas's --token-file; made when missing");

export const createToken: Command = defineCommand({
  name: "token create",
  summary: "a new token: printed once, its hash goes into the file of tokens",
  examples: [
    "smartstack token create --file /etc/smartstack/tokens --role deploy --name ann",
    "smartstack token create --file tokens --role agent --name host001 --host host001 --out h.token",
  ],
  options: {
    file,
    // the roles stand here once more: the table of commands loads no program
    role: option(oneOf(["read", "agent", "deploy", "admin"]), "what it may do; docs/security.md has the table"),
    name: flagOnly(option(text("NAME"), "whose it is, as the audit trail will say")),
    host: flagOnly(option(host, "the host of an agent: its token is good for that one alone")),
    out: option(path(), "write the token there, readable for its owner alone, instead of printing it"),
  },
  async run({ values, sources }) {
    const { formatToken, hashToken, isTokenName, tokenNameRule } = await import("../atlas/tokens.ts");
    const { role, name } = values;
    if (values.file === undefined) throw usageError(createToken, "missing --file");
    if (role === undefined || name === undefined)
      throw usageError(createToken, `missing ${role === undefined ? "--role" : "--name"}`);
    if (!isTokenName(name)) throw usageError(createToken, tokenNameRule);
    if ((role === "agent") !== (values.host !== undefined))
      throw usageError(createToken, role === "agent" ? "an agent needs its --host" : "only an agent has a --host");
    const token = PREFIX + randomBytes(RANDOM_BYTES).toString("base64url");
    const line = formatToken({
      role,
      name,
      hash: hashToken(token),
      ...(values.host === undefined ? {} : { host: values.host }),
    });
    const place = { path: values.file, source: sources.file };
    await edit(place, async (lines, tokens) => {
      if (tokens.some((other) => other.name === name))
        throw new Fault({
          code: "conflict",
          message: `${place.path} has a token ${name} already`,
          hint: `Choose another name, or end that one first: smartstack token revoke ${name} --file ${place.path}`,
        });
      if (values.out !== undefined) await writeNew(values.out, `${token}\n`);
      return [...lines, line];
    });
    if (values.out === undefined) print(token);
    remind(values.out === undefined ? "It is shown this once." : `${values.out} holds it.`);
    return EXIT.done;
  },
});

export const listTokens: Command = defineCommand({
  name: "token list",
  summary: "the tokens of a file: names, roles, hosts, and nothing that opens anything",
  options: { file, json: shared.json },
  async run({ values, sources }) {
    if (values.file === undefined) throw usageError(listTokens, "missing --file");
    const { tokens } = await readTokenFile({ path: values.file, source: sources.file }, false);
    const shown = tokens.map(({ name, role, host }) => (host === undefined ? { name, role } : { name, role, host }));
    answer(values.json, shown, () =>
      shown.length === 0
        ? "no tokens"
        : formatTable(
            ["NAME", "ROLE", "HOST"],
            shown.map((token) => [token.name, token.role, "host" in token ? token.host : ""]),
          ),
    );
    return EXIT.done;
  },
});

export const revokeToken: Command = defineCommand({
  name: "token revoke",
  summary: "take a token out of the file: it opens nothing more once Atlas has read the file again",
  arguments: [{ name: "NAME", describe: "the token's name" }],
  options: { file },
  async run({ values, sources, args: [name = ""] }) {
    if (values.file === undefined) throw usageError(revokeToken, "missing --file");
    const place = { path: values.file, source: sources.file };
    const left = await edit(place, async (lines, tokens) => {
      if (!tokens.some((token) => token.name === name))
        throw new Fault({
          code: "not_found",
          message: `${place.path} has no token ${name}`,
          hint: `smartstack token list --file ${place.path} shows those it has.`,
        });
      return lines.filter((line) => line.trim().startsWith("#") || line.trim().split(/\s+/)[1] !== name);
    });
    print(`${name} is out of ${place.path}`);
    remind(left === 0 ? "It was the last one, and Atlas refuses a file without any: create another first." : "");
    return EXIT.done;
  },
});

type Place = { readonly path: string; readonly source: Source };
type KnownToken = { readonly name: string; readonly role: string; readonly host?: string };

/** What a file holds. @throws ConfigError with every line that is none, or when it cannot be read */
async function readTokenFile(
  { path, source }: Place,
  mayMiss: boolean,
): Promise<{ readonly lines: readonly string[]; readonly tokens: readonly KnownToken[] }> {
  const { parseTokens } = await import("../atlas/tokens.ts");
  let content: string;
  try {
    content = await readFile(path, "utf8");
  } catch (error) {
    if (mayMiss && errorCode(error) === "ENOENT") return { lines: [], tokens: [] };
    throw new ConfigError([
      { key: "file", source: formatSource(source), message: `${path} cannot be read: ${describeError(error)}` },
    ]);
  }
  const { tokens, problems } = parseTokens(content);
  const bad = problems.filter(({ empty }) => empty !== true);
  if (bad.length > 0)
    throw new ConfigError(bad.map(({ line, message }) => ({ key: "file", source: `${path}:${line}`, message })));
  return { lines: content === "" ? [] : content.replace(/\n$/, "").split("\n"), tokens };
}

/**
 * Reads, changes and replaces the file, one command at a time. A new one is its owner's alone; an older one keeps its mode and
 * its owner, or the user of Atlas could not read it any more.
 * @returns how many tokens are in it now
 */
async function edit(
  place: Place,
  change: (lines: readonly string[], tokens: readonly KnownToken[]) => Promise<readonly string[]>,
): Promise<number> {
  const lock = `${place.path}.lock`;
  try {
    await (await open(lock, "wx", 0o600)).close();
  } catch (error) {
    const busy = errorCode(error) === "EEXIST";
    throw new Fault({
      code: busy ? "conflict" : "file",
      message: busy
        ? `another command changes ${place.path}`
        : `cannot write beside ${place.path}: ${describeError(error)}`,
      ...(busy ? { hint: `If none does, one was killed: remove ${lock}.` } : {}),
    });
  }
  try {
    const { lines, tokens } = await readTokenFile(place, true);
    const next = await change(lines, tokens);
    const was = await stat(place.path).catch(() => undefined);
    await writeFileAtomic(place.path, `${next.join("\n")}\n`, {
      mode: was === undefined ? 0o600 : was.mode & 0o777,
      ...(was === undefined ? {} : { owner: { uid: was.uid, gid: was.gid } }),
    });
    return tokens.length + next.length - lines.length;
  } finally {
    await rm(lock, { force: true });
  }
}

/** @throws Fault when there is something already: it may be a token that works */
async function writeNew(path: string, content: string): Promise<void> {
  try {
    const made = await open(path, "wx", 0o600);
    try {
      await made.writeFile(content);
    } finally {
      await made.close();
    }
  } catch (error) {
    throw new Fault({ code: "file", message: `cannot write the token to ${path}: ${describeError(error)}` });
  }
}

/** To standard error: standard output is the token's. */
function remind(first: string): void {
  const lines = [
    ...(first === "" ? [] : [first]),
    "Every Atlas with this file counts the change once it reads it again: systemctl reload smartstack-atlas (or kill -HUP its pid).",
  ];
  process.stderr.write(`${lines.join("\n")}\n`);
}
