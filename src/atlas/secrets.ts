// What Atlas is told in files, read when it starts and again on SIGHUP. A file that is not usable is told in the log, and what
// was read before stays.
import { describeError } from "../core/lib/errors.ts";
import type { Logger } from "../core/lib/logger.ts";
import type { Certificate } from "./certificate.ts";
import type { Token } from "./tokens.ts";

/** How each of them is read; undefined: there is none, now and after every SIGHUP. Each throws a Fault that names its file. */
export type SecretFiles = {
  /** Undefined: nobody needs a token. */
  readonly tokens?: (() => readonly Token[]) | undefined;
  /** What replicas show each other: the first is shown, each is taken, so that they can be changed one replica at a time. */
  readonly peerTokens?: (() => readonly string[]) | undefined;
  readonly certificate?: (() => Certificate) | undefined;
  /** PEM of the certificate authority of the other replicas. */
  readonly tlsCa?: (() => string) | undefined;
};

type Values = {
  readonly tokens: readonly Token[] | undefined;
  readonly peerTokens: readonly string[] | undefined;
  readonly certificate: Certificate | undefined;
  readonly tlsCa: string | undefined;
};

/** The names of the files in messages. */
const NAMES = {
  tokens: "the tokens",
  peerTokens: "the peers' token",
  certificate: "the certificate",
  tlsCa: "the peers' certificate authority",
} as const satisfies Readonly<Record<keyof Values, string>>;

export class Secrets {
  readonly #files: SecretFiles;
  #values: Values;

  /** @throws Fault of the first file that is not usable */
  constructor(files: SecretFiles = {}) {
    this.#files = files;
    this.#values = {
      tokens: files.tokens?.(),
      peerTokens: files.peerTokens?.(),
      certificate: files.certificate?.(),
      tlsCa: files.tlsCa?.(),
    };
  }

  get tokens(): readonly Token[] | undefined {
    return this.#values.tokens;
  }

  get peerTokens(): readonly string[] | undefined {
    return this.#values.peerTokens;
  }

  get certificate(): Certificate | undefined {
    return this.#values.certificate;
  }

  get tlsCa(): string | undefined {
    return this.#values.tlsCa;
  }

  /** Reads every file again, each on its own: a bad line among the tokens keeps no certificate from being renewed. */
  reload(logger: Logger): void {
    for (const name of Object.keys(NAMES) as (keyof Values)[]) this.#reloadOne(name, logger);
  }

  #reloadOne(name: keyof Values, logger: Logger): void {
    const read = this.#files[name];
    if (read === undefined) return;
    try {
      this.#values = { ...this.#values, [name]: read() };
      logger.info(`${NAMES[name]}: read again`);
    } catch (error) {
      logger.error(`${NAMES[name]}: not usable, what was read before stays: ${describeError(error)}`);
    }
  }
}
