// The files that hold what Atlas must keep to itself, as its options name them: read at the start, and again on SIGHUP.
import { type Certificate, readCertificate } from "../atlas/certificate.ts";
import type { SecretFiles } from "../atlas/secrets.ts";
import { parseTokens, type Token } from "../atlas/tokens.ts";
import { Fault } from "../core/lib/errors.ts";
import { ConfigError, type ConfigIssue } from "../core/lib/config-error.ts";
import { formatSource, kebab, readText, type Source } from "./config.ts";
import { readCa } from "./connection.ts";

/** An option that names a file, and where it was said. */
type Named = { readonly key: string; readonly path: string; readonly source: string };

type SecretValues = {
  readonly tokenFile: string | undefined;
  readonly peerTokenFile: string | undefined;
  readonly tlsCert: string | undefined;
  readonly tlsKey: string | undefined;
  readonly tlsCa: string | undefined;
};

/** Shorter ones could be guessed; `openssl rand -hex 32` has 64 characters. */
const LEAST_PEER_TOKEN = 32;

/**
 * How the files are read. Each was read once.
 * @throws ConfigError with everything that is wrong with any of them
 */
export function secretFiles(values: SecretValues, sources: Readonly<Record<keyof SecretValues, Source>>): SecretFiles {
  const named = (key: keyof SecretValues): Named | undefined => {
    const path = values[key];
    return path === undefined ? undefined : { key, path, source: formatSource(sources[key]) };
  };
  const [tokens, peers, cert, key, ca] = [
    named("tokenFile"),
    named("peerTokenFile"),
    named("tlsCert"),
    named("tlsKey"),
    named("tlsCa"),
  ];
  const files: SecretFiles = {
    tokens: tokens && (() => readTokens(tokens)),
    peerTokens: peers && (() => readPeerTokens(peers)),
    certificate: cert && key && (() => readPair(cert, key)),
    tlsCa: ca && (() => readCa(ca.path, ca.source)),
  };
  const issues = Object.values(files).flatMap((read: (() => unknown) | undefined) => (read ? issuesOf(read) : []));
  if ((cert === undefined) !== (key === undefined)) {
    const { key: has, source } = cert ?? key ?? { key: "tlsCert", source: "default" };
    issues.push({ key: kebab(has), source, message: "--tls-cert and --tls-key go together" });
  }
  if (issues.length > 0) throw new ConfigError(issues);
  return files;
}

function issuesOf(read: () => unknown): readonly ConfigIssue[] {
  try {
    read();
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.issues;
    throw error;
  }
}

function issue({ key, path, source }: Named, message: string): ConfigIssue {
  return { key: kebab(key), source, message: `${path} ${message}` };
}

/** @throws ConfigError with every bad line, as FILE:LINE */
function readTokens({ key, path, source }: Named): readonly Token[] {
  const { tokens, problems } = parseTokens(readText(path, key, source));
  if (problems.length === 0) return tokens;
  throw new ConfigError(problems.map(({ line, message }) => ({ key: kebab(key), source: `${path}:${line}`, message })));
}

/** One token a line, so that there can be two while they are changed. @throws ConfigError */
function readPeerTokens(file: Named): readonly string[] {
  const lines = readText(file.path, file.key, file.source)
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
  if (lines.length === 0) throw new ConfigError([issue(file, "holds no token")]);
  if (!lines.every((line) => /^[\x21-\x7e]+$/.test(line) && line.length >= LEAST_PEER_TOKEN)) {
    const rule = `holds a line that is no token: one word of at least ${LEAST_PEER_TOKEN} characters (openssl rand -hex 32)`;
    throw new ConfigError([issue(file, rule)]);
  }
  return lines;
}

function readPair(cert: Named, key: Named): Certificate {
  const texts = [cert, key].map((file) => readText(file.path, file.key, file.source));
  try {
    return readCertificate(texts[0] ?? "", texts[1] ?? "", Date.now());
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new ConfigError([issue(cert, `with ${key.path}: ${error.message}${error.hint ? `. ${error.hint}` : ""}`)]);
  }
}
