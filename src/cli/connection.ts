// How every command that talks to Atlas finds it: addresses, token, certificate authority.
import { type AtlasClient, type AtlasClientOptions, createAtlasClient } from "../core/api/atlas-client.ts";
import { X509Certificate } from "node:crypto";
import { describeError } from "../core/lib/errors.ts";
import { ConfigError } from "../core/lib/config-error.ts";
import { formatSource, readText, type Source } from "./config.ts";
import { shared } from "./options.ts";

/** Options of a command that talks to Atlas. */
export const atlasOptions = { atlas: shared.atlas, tokenFile: shared.tokenFile, tlsCa: shared.tlsCa } as const;

type Connection = {
  readonly values: {
    readonly atlas: readonly string[];
    readonly tokenFile: string | undefined;
    readonly tlsCa: string | undefined;
  };
  readonly sources: { readonly tokenFile: Source; readonly tlsCa: Source };
};

/** What `createAtlasClient` takes, with the files read. @throws ConfigError when one of them is not usable */
export function atlasAccess({ values, sources }: Connection): {
  readonly urls: readonly string[];
  readonly token: string | undefined;
  readonly tlsCa: string | undefined;
} {
  return {
    urls: values.atlas,
    token: values.tokenFile === undefined ? undefined : readToken(values.tokenFile, formatSource(sources.tokenFile)),
    tlsCa: values.tlsCa === undefined ? undefined : readCa(values.tlsCa, formatSource(sources.tlsCa)),
  };
}

/** The same for a program that goes on when the files change. */
export type LiveAccess = Required<AtlasClientOptions> & {
  /** Reads the files again. @throws ConfigError when one of them is not usable; then both stay what they were */
  reload(): void;
};

/** @throws ConfigError when a file is not usable */
export function liveAccess(connection: Connection): LiveAccess {
  let current = atlasAccess(connection);
  return {
    urls: current.urls,
    token: () => current.token,
    tlsCa: () => current.tlsCa,
    reload() {
      current = atlasAccess(connection);
    },
  };
}

/** How long a replica has to say that it is ready, in ms, before others are preferred. */
const READY_MS = 2_000;

/**
 * A client for the Atlas that a command was told. Of several replicas it asks the first that says it is ready: one whose
 * host is gone would swallow the only request that a command has time for.
 * @throws ConfigError as `atlasAccess`
 */
export function connectAtlas(connection: Connection): AtlasClient {
  const access = atlasAccess(connection);
  if (access.urls.length < 2) return createAtlasClient(access);
  const client = firstReady(access).then((url) => {
    const others = access.urls.filter((other) => other !== url);
    return createAtlasClient({ ...access, urls: url === undefined ? access.urls : [url, ...others] });
  });
  return {
    request: async (path, request) => (await client).request(path, request),
    fetch: async (path, init) => (await client).fetch(path, init),
  };
}

/** Undefined when none is: the request itself then fails, and says why. */
async function firstReady(access: ReturnType<typeof atlasAccess>): Promise<string | undefined> {
  const ending = new AbortController();
  const signal = AbortSignal.any([ending.signal, AbortSignal.timeout(READY_MS)]);
  try {
    return await Promise.any(
      access.urls.map(async (url) => {
        const { ok } = await createAtlasClient({ ...access, urls: [url] }).fetch("/readyz", { signal });
        return ok ? url : Promise.reject(new Error(`${url} is not ready`));
      }),
    );
  } catch (error) {
    if (error instanceof AggregateError) return undefined;
    throw error;
  } finally {
    ending.abort();
  }
}

/**
 * The one token a file holds.
 * @throws ConfigError that says what is wrong without repeating what may be a secret
 */
function readToken(path: string, source: string): string {
  const token = readText(path, "tokenFile", source).trim();
  // what a header can carry: RFC 6750's b64token and nothing that could split a header
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  const message = token === "" ? "is empty" : "holds more than one plain token";
  throw new ConfigError([{ key: "token-file", source, message: `${path} ${message}` }]);
}

/**
 * The certificate authority that a program trusts, as PEM. Checked here: fetch would call a broken one a mistyped URL.
 * @throws ConfigError
 */
export function readCa(path: string, source: string): string {
  const text = readText(path, "tlsCa", source);
  const refuse = (message: string): ConfigError =>
    new ConfigError([{ key: "tls-ca", source, message: `${path} ${message}` }]);
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) throw refuse("holds no certificate in PEM");
  for (const block of blocks) {
    try {
      void new X509Certificate(block);
    } catch (error) {
      throw refuse(`holds a certificate that is broken: ${describeError(error)}`);
    }
  }
  return text;
}
