// What the end-to-end tests with tokens and TLS share: certificates made by openssl, files of tokens made by the binary, and an
// Atlas that asks for them.
import { appendFile, copyFile, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { createAtlasClient } from "../core/api/atlas-client.ts";
import { BINARY, eventually, type Spawned, type World } from "./harness.ts";

/** Paths of PEM files. */
export type Pair = { readonly cert: string; readonly key: string };

export type Authority = {
  /** For --tls-ca. */
  readonly ca: string;
  /**
   * A certificate for those names (`DNS:localhost`, `IP:127.0.0.1`), by default both.
   * @param valid as openssl writes times: `20200101000000Z`. @default from now for a month
   */
  issue(
    name: string,
    options?: { readonly names?: readonly string[]; readonly valid?: readonly [string, string] },
  ): Promise<Pair>;
};

const EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

async function openssl(world: World, ...argv: string[]): Promise<void> {
  const { code, stderr } = await world.run(["openssl", ...argv]);
  if (code !== 0) throw new Error(`openssl ${argv.join(" ")}: ${stderr}`);
}

/** An authority of the scenario's own. */
export async function createAuthority(world: World, name = "ca"): Promise<Authority> {
  const at = (file: string): string => join(world.directory, `${name}-${file}`);
  const [ca, key] = [at("root.pem"), at("root.key")];
  await openssl(world, "req", "-x509", ...EC, "-keyout", key, "-out", ca, "-subj", `/CN=${name}`, "-days", "30");
  await writeFile(at("index"), "");
  await writeFile(at("serial"), "1000\n");
  await writeFile(
    at("openssl.cnf"),
    [
      "[ca]\ndefault_ca=own\n[own]",
      `database=${at("index")}\nserial=${at("serial")}\nnew_certs_dir=${world.directory}`,
      "default_md=sha256\ndefault_days=30\nunique_subject=no\npolicy=any\n[any]\ncommonName=supplied\n",
    ].join("\n"),
  );
  return {
    ca,
    async issue(subject, { names = ["DNS:localhost", "IP:127.0.0.1"], valid } = {}) {
      const pair = { cert: at(`${subject}.pem`), key: at(`${subject}.key`) };
      const [request, extensions] = [at(`${subject}.csr`), at(`${subject}.ext`)];
      await writeFile(extensions, `subjectAltName=${names.join(",")}\n`);
      await openssl(world, "req", "-new", ...EC, "-keyout", pair.key, "-out", request, "-subj", `/CN=${subject}`);
      const period = valid === undefined ? [] : ["-startdate", valid[0], "-enddate", valid[1]];
      const own = ["-config", at("openssl.cnf"), "-cert", ca, "-keyfile", key, "-extfile", extensions];
      await openssl(world, "ca", "-batch", "-notext", ...own, ...period, "-in", request, "-out", pair.cert);
      return pair;
    },
  };
}

/** Replaces a pair's files by another's, as whoever renews a certificate does. */
export async function replacePair(old: Pair, next: Pair): Promise<void> {
  for (const [from, to] of [
    [next.key, old.key],
    [next.cert, old.cert],
  ] as const) {
    await copyFile(from, `${to}.new`);
    await rename(`${to}.new`, to);
  }
}

type Role = "read" | "agent" | "deploy" | "admin";

export type Tokens = {
  /** For Atlas's --token-file. */
  readonly file: string;
  /** Makes a token with `smartstack token create`; the path of the file that holds it. */
  create(role: Role, name: string, host?: string): Promise<string>;
  revoke(name: string): Promise<void>;
  /** Puts a line into the file that is none. */
  spoil(): Promise<void>;
};

export function createTokens(world: World, name = "tokens"): Tokens {
  const file = join(world.directory, name);
  const token = async (...argv: string[]): Promise<void> => {
    const { code, stderr } = await world.run([BINARY, "token", ...argv, "--file", file]);
    if (code !== 0) throw new Error(stderr);
  };
  return {
    file,
    async create(role, owner, host) {
      const out = join(world.directory, `${owner}.token`);
      const place = host === undefined ? [] : ["--host", host];
      await token("create", "--role", role, "--name", owner, "--out", out, ...place);
      return out;
    },
    revoke: (owner) => token("revoke", owner),
    spoil: () => appendFile(file, "admin mallory no-hash\n"),
  };
}

export type SecureAtlas = {
  readonly url: string;
  readonly port: number;
  readonly process: Spawned;
  /** Sends SIGHUP and waits until the log says that files were read again. */
  reload(): Promise<void>;
  /** With the token of that file. @throws AtlasProblem */
  ask(
    token: string | undefined,
    path: string,
    method?: "GET" | "PUT" | "PATCH" | "DELETE" | "POST",
    body?: unknown,
  ): Promise<Record<string, unknown>>;
};

/** Resolves when it is ready. `https` when there is a certificate. */
export async function startSecureAtlas(
  world: World,
  options: {
    readonly tokens: Pick<Tokens, "file">;
    readonly authority?: Authority;
    readonly pair?: Pair;
    readonly flags?: readonly string[];
    readonly env?: Readonly<Record<string, string>>;
    readonly port?: number;
  },
): Promise<SecureAtlas> {
  const { tokens, authority, pair, flags = [], env = {} } = options;
  const port = options.port ?? (await world.port());
  const tls = pair === undefined ? [] : ["--tls-cert", pair.cert, "--tls-key", pair.key];
  const listen = ["--listen", `127.0.0.1:${port}`, "--data-dir", join(world.directory, `atlas-${port}`)];
  const process = world.spawn([BINARY, "atlas", ...listen, "--token-file", tokens.file, ...tls, ...flags], {
    name: `atlas :${port}`,
    env,
  });
  const url = `${pair === undefined ? "http" : "https"}://127.0.0.1:${port}`;
  const ca = authority === undefined ? undefined : await readFile(authority.ca, "utf8");
  const client = (token: string | undefined) => createAtlasClient({ urls: [url], token, tlsCa: ca });
  await eventually(
    "Atlas is ready",
    () => client(undefined).request("/readyz", { schema: z.object({ status: z.literal("ready") }) }),
    20_000,
  );
  const reloads = (): number => process.output().split("the tokens: ").length - 1;
  return {
    url,
    port,
    process,
    async reload() {
      const before = reloads();
      process.signal("SIGHUP");
      await eventually("Atlas has read its files again", () => {
        if (reloads() === before) throw new Error(process.output());
      });
    },
    async ask(token, path, method = "GET", body) {
      const secret = token === undefined ? undefined : (await readFile(token, "utf8")).trim();
      const schema = z.union([z.record(z.string(), z.unknown()), z.array(z.unknown()).transform((list) => ({ list }))]);
      return client(secret).request(path, { method, body, schema });
    },
  };
}
