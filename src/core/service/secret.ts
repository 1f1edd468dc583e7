// A secret that cannot be printed by accident: not in a log line, not in JSON, not in a message, not in `console.log`.
import { inspect } from "node:util";
import { z } from "zod";

/** What stands wherever a secret would have stood. */
export const MASK = "[secret]";

/** A secret value of the configuration. Only `reveal()` tells it. */
export class Secret<T = string> {
  readonly #value: T;

  constructor(value: T) {
    this.#value = value;
  }

  /** The value itself, for the one place that needs it. */
  reveal(): T {
    return this.#value;
  }

  toString(): string {
    return MASK;
  }

  toJSON(): string {
    return MASK;
  }

  [inspect.custom](): string {
    return MASK;
  }
}

/** In `defaults`: this key is a secret. Made by `secret()`. */
export class SecretKey<T = string> {
  readonly schema: z.ZodType<T>;
  /** Undefined: it must be set. */
  readonly fallback: T | undefined;

  constructor(schema: z.ZodType<T>, fallback: T | undefined) {
    this.schema = schema;
    this.fallback = fallback;
  }
}

/**
 * Declares a secret in `defaults`: `API_KEY: secret()` must be set, `API_KEY: secret("xyz123")` has a value for the laptop,
 * `API_KEY: secret(z.string().min(20))` has rules. In the configuration it is a `Secret`.
 */
export function secret(fallback?: string): SecretKey;
export function secret<T>(schema: z.ZodType<T>): SecretKey<T>;
export function secret<T>(given?: string | z.ZodType<T>): SecretKey | SecretKey<T> {
  if (given === undefined || typeof given === "string") return new SecretKey(z.string().min(1), given);
  return new SecretKey(given, undefined);
}

const SECRET_NAME = /key|token|pass|secret/i;

/** Runscope's rule: a name that contains key, token or pass (here also secret) hides its value, declared secret or not. */
export function isSecretName(name: string): boolean {
  return SECRET_NAME.test(name);
}
