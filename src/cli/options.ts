// The kinds of values that flags, environment variables and configuration files can hold. Text from the first two, YAML
// scalars from the third: each schema takes both.
import { type Address, formatAddress } from "../core/lib/address.ts";
import { homedir, hostname } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { hostName, port as portNumber } from "../core/model/names.ts";
import { realmName } from "../core/model/realm.ts";

/** A kind of value: how it is called in `--help`, and how it is read. Without a placeholder it is a switch. */
export type Kind<T> = {
  readonly placeholder?: string;
  readonly schema: z.ZodType<T>;
  readonly repeatable?: boolean;
  /** The only values there are: `completion` offers them. */
  readonly choices?: readonly string[];
  /** A value that is good, for the commented configuration file of an option without a default. @default the placeholder */
  readonly example?: string;
  /** A value as it can be typed. @default as text, HOST:PORT, or with commas */
  format?(value: T): string;
};

/** One option of a command: its kind, one line of help, and what it is when nobody says. */
export type Option<T> = {
  readonly kind: Kind<NonNullable<T>>;
  readonly describe: string;
  readonly default: T;
  readonly short?: string;
  /** Neither a variable nor a file says it: what is meant for one command must not be left to all. */
  readonly flagOnly?: true;
};

/** An option with a default, or one that may stay undefined. */
export function option<T>(kind: Kind<T>, describe: string, fallback: T, short?: string): Option<T>;
export function option<T>(kind: Kind<T>, describe: string): Option<T | undefined>;
export function option<T>(
  kind: Kind<NonNullable<T>>,
  describe: string,
  fallback?: T,
  short?: string,
): Option<T | undefined> {
  return { kind, describe, default: fallback, ...(short === undefined ? {} : { short }) };
}

/** An option that only its flag sets. */
export function flagOnly<T>(one: Option<T>): Option<T> {
  return { ...one, flagOnly: true };
}

const scalarText = z.union([z.string(), z.number().transform(String), z.boolean().transform(String)], {
  error: "must be one value",
});

function numeric(schema: z.ZodType<number, number>, expected: string): z.ZodType<number> {
  return z.unknown().transform((value, context) => {
    const number = typeof value === "string" && /^-?\d+$/.test(value) ? Number(value) : value;
    const result = schema.safeParse(number);
    if (result.success) return result.data;
    context.addIssue({ code: "custom", message: expected });
    return z.NEVER;
  });
}

const UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

export const text = (placeholder: string): Kind<string> => ({
  placeholder,
  schema: scalarText.pipe(z.string().min(1, "must not be empty")),
});

export const texts = (placeholder: string): Kind<readonly string[]> => ({
  placeholder,
  repeatable: true,
  schema: z.union([z.string().transform((one) => [one]), z.array(z.string())], {
    error: "must be one value or a list of values",
  }),
});

/** A comma-separated list, or a YAML list. */
export const list = (
  placeholder: string,
  item: z.ZodType<string, string> = z.string().min(1),
): Kind<readonly string[]> => ({
  placeholder,
  schema: z
    .union(
      [
        z.string().transform((value) =>
          value
            .split(",")
            .map((part) => part.trim())
            .filter((part) => part !== ""),
        ),
        z.array(z.string()),
      ],
      { error: "must be values with commas between them, or a list" },
    )
    .pipe(z.array(item).min(1, "must not be empty")),
});

export const integer = (placeholder: string, min: number, max: number): Kind<number> => ({
  placeholder,
  example: String(min),
  schema: numeric(z.int().min(min).max(max), `must be a whole number from ${min} to ${max}`),
});

export const port: Kind<number> = {
  placeholder: "PORT",
  example: "5000",
  schema: numeric(portNumber, "must be a port, 1 to 65535"),
};

export const path = (placeholder = "FILE"): Kind<string> => text(placeholder);

export const oneOf = <const T extends string>(values: readonly [T, ...T[]]): Kind<T> => ({
  placeholder: values.join("|"),
  choices: values,
  example: values[0],
  schema: z.enum(values, { error: `must be one of ${values.join(", ")}` }),
});

/** True when given. In the environment and in files: true/false, 1/0, yes/no, on/off. */
export const toggle: Kind<boolean> = {
  schema: z.union([z.boolean(), z.stringbool()], { error: "must be true or false" }),
};

/** The longest a timer can wait; a longer one would fire at once. */
const LONGEST_MS = 2_147_483_647;

/** `1500`, `1500ms`, `10s`, `5m`, `1h` → milliseconds. */
export const duration: Kind<number> = {
  placeholder: "TIME",
  example: "10s",
  format(ms) {
    const [unit, size] = Object.entries(UNITS_MS).findLast(([, size]) => ms >= size && ms % size === 0) ?? ["ms", 1];
    return `${ms / size}${unit}`;
  },
  schema: scalarText.transform((value, context) => {
    const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(value);
    const ms = Math.round(Number(match?.[1]) * (UNITS_MS[match?.[2] ?? "ms"] ?? 1));
    if (ms <= LONGEST_MS) return ms;
    const message = match === null ? "must be a time such as 500ms, 10s or 5m" : "must be at most 596h";
    context.addIssue({ code: "custom", message });
    return z.NEVER;
  }),
};

/** `HOST:PORT`, `[::1]:PORT`; port 0 asks the system for a free one. */
export const hostPort: Kind<Address> = {
  placeholder: "HOST:PORT",
  example: "127.0.0.1:7400",
  schema: scalarText.transform((value, context) => {
    const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(value);
    const host = match?.[1] ?? match?.[2];
    const number = Number(match?.[3]);
    if (host === undefined || !hostName.safeParse(host).success || number > 65_535) {
      context.addIssue({ code: "custom", message: "must be HOST:PORT, for example 127.0.0.1:7400" });
      return z.NEVER;
    }
    return { host, port: number };
  }),
};

/** The default of an option as it can be typed, or undefined when it has none worth a word. */
export function formatDefault({ kind, default: value }: Option<unknown>): string | undefined {
  if (
    value === undefined ||
    value === null ||
    value === false ||
    value === "" ||
    (Array.isArray(value) && value.length === 0)
  )
    return undefined;
  return kind.format?.(value) ?? formatValue(value);
}

function formatValue(value: unknown): string {
  if (Array.isArray(value)) return value.join(",");
  if (typeof value === "object" && value !== null && "host" in value && "port" in value)
    return formatAddress({ host: String(value.host), port: Number(value.port) });
  return String(value);
}

const urlText = z
  .string()
  .refine((value) => URL.canParse(value) && /^https?:$/.test(new URL(value).protocol), {
    error: "must be a URL such as http://127.0.0.1:7400",
    abort: true,
  })
  .refine((value) => {
    // a path would be dropped without a word when requests are made, a password would end up in messages
    const { pathname, search, hash, username, password } = new URL(value);
    return pathname === "/" && search + hash + username + password === "";
  }, "must be a URL of scheme, host and port alone");

export const url: Kind<string> = { placeholder: "URL", example: "http://127.0.0.1:7400", schema: urlText };
export const urls: Kind<readonly string[]> = {
  ...list("URL[,URL…]", urlText),
  example: "http://127.0.0.1:7400",
};
export const host: Kind<string> = {
  placeholder: "NAME",
  example: "host001",
  // DNS knows no case, and names in the registry are compared as they are
  schema: scalarText.pipe(hostName).transform((name) => name.toLowerCase()),
};
export const realm: Kind<string> = { placeholder: "REALM", example: "local", schema: realmName };

/** Where state lies when nobody says: the system's place for root, the user's otherwise. */
export function defaultStateDirectory(): string {
  return process.getuid?.() === 0 ? "/var/lib/smartstack" : join(homedir(), ".local/state/smartstack");
}

/** This machine's name, as instances and leases carry it. */
export function defaultHost(): string {
  return hostname().toLowerCase();
}

/** Options that several commands share: one text, one default. */
export const shared = {
  atlas: option(urls, "Atlas, every replica's address", ["http://127.0.0.1:7400"]),
  tokenFile: option(path(), "file that holds one token for Atlas"),
  tlsCa: option(path(), "certificate authority of Atlas, PEM"),
  realm: option(realm, "environment this belongs to", "local"),
  json: option(toggle, "print JSON instead of a table", false),
  logLevel: option(oneOf(["trace", "debug", "info", "warn", "error"]), "least level that is logged", "info"),
  logFormat: option(oneOf(["auto", "json", "pretty"]), "auto: pretty on a terminal, JSON elsewhere", "auto"),
} as const;
