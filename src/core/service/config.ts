// Smart config: `defaults` is the schema and the defaults at once, layers on top of it give values, and every value knows
// where it came from. Pure: files and the environment are read by whoever makes the layers.
import { z } from "zod";
import { ConfigError, type ConfigIssue } from "../lib/config-error.ts";
import { parseJson } from "../lib/json.ts";
import { plainly } from "../lib/plainly.ts";
import { isSecretName, MASK, Secret, SecretKey } from "./secret.ts";

/** A plain value whose type is the schema, a zod schema, or `secret()`. */
type DefaultValue = string | number | boolean | readonly unknown[] | object;
export type Defaults = Readonly<Record<string, DefaultValue>>;

type Widened<V> = V extends string
  ? string
  : V extends number
    ? number
    : V extends boolean
      ? boolean
      : V extends readonly (infer Item)[]
        ? readonly Widened<Item>[]
        : V extends object
          ? { readonly [K in keyof V]: Widened<V[K]> }
          : V;

/** The configuration that a set of defaults makes. */
export type ConfigOf<D extends Defaults> = {
  readonly [K in keyof D]: D[K] extends SecretKey<infer T>
    ? Secret<T>
    : D[K] extends z.ZodType<infer T>
      ? T
      : Widened<D[K]>;
};

/** A value somebody gave, and how to call the place: `environment PAGE_SIZE`, `settings.yaml:3`, `flag --set`. */
export type GivenValue = { readonly raw: unknown; readonly source: string };

/** One source of values. Later layers win. */
export type ConfigLayer = {
  /** `text`: every value is a string to be read (environment, flags). `data`: values have their types (YAML, JSON). */
  readonly form: "text" | "data";
  /** A key that `defaults` does not know is a mistake. False for the environment, which holds the world's variables. */
  readonly closed: boolean;
  readonly values: ReadonlyMap<string, GivenValue>;
};

/** One key of the resolved configuration, fit to be shown: secrets are masked. */
export type Provenance = { readonly key: string; readonly shown: string; readonly source: string };

export type ResolvedConfig = {
  readonly config: Readonly<Record<string, unknown>>;
  readonly provenance: readonly Provenance[];
};

const KEY = /^[A-Za-z_][A-Za-z0-9_]{0,99}$/;

/**
 * The configuration: defaults, overlaid by the layers in order.
 * @param layers lowest precedence first
 * @throws ConfigError with every bad, missing or unknown key
 */
export function resolveServiceConfig(defaults: Defaults, layers: readonly ConfigLayer[]): ResolvedConfig {
  const issues: ConfigIssue[] = [];
  for (const layer of layers.filter(({ closed }) => closed)) {
    for (const [key, { source }] of layer.values)
      if (!Object.hasOwn(defaults, key))
        issues.push({
          key,
          source,
          message: `is not a key of this service; it has ${Object.keys(defaults).join(", ")}`,
        });
  }
  const config: Record<string, unknown> = {};
  const provenance: Provenance[] = [];
  for (const [key, declared] of Object.entries(defaults)) {
    const setting = settingOf(key, declared);
    const layer = layers.findLast(({ values }) => values.has(key));
    const given = layer?.values.get(key);
    const source = given?.source ?? "default";
    const result =
      layer === undefined || given === undefined
        ? setting.fallback()
        : layer.form === "text"
          ? setting.fromText(String(given.raw))
          : setting.fromData(given.raw);
    if (!result.ok) {
      issues.push({ key, source, message: result.message });
      continue;
    }
    config[key] = setting.secret ? new Secret(result.value) : result.value;
    provenance.push({ key, shown: setting.secret || isSecretName(key) ? MASK : show(result.value), source });
  }
  if (issues.length > 0) throw new ConfigError(issues);
  return { config: Object.freeze(config), provenance };
}

/** Without what Runscope's rule hides in a part of it, and without the password of a URL. */
function show(value: unknown): string {
  const hide = (name: string, part: unknown): unknown => (isSecretName(name) ? MASK : part);
  const text = typeof value === "string" ? value : (JSON.stringify(value, hide) ?? "");
  return text.replaceAll(/(\b[a-z][a-z0-9+.-]*:\/\/[^\s/:@"]*:)[^\s/"]*@/gi, `$1${MASK}@`);
}

type Read = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly message: string };

type Setting = {
  readonly secret: boolean;
  fallback(): Read;
  fromText(text: string): Read;
  fromData(value: unknown): Read;
};

function settingOf(key: string, declared: DefaultValue): Setting {
  if (!KEY.test(key)) return broken("a key is letters, digits and '_', and begins with no digit");
  if (declared instanceof SecretKey) return secretSetting(key, declared);
  if (declared instanceof z.ZodType) return schemaSetting(key, declared);
  const schema = schemaOfLiteral(declared);
  if (schema === undefined)
    return broken("a default is a string, a number, true or false, a list, an object, a zod schema or secret()");
  return {
    secret: false,
    fallback: () => ({ ok: true, value: declared }),
    fromData: (value) => check(schema, value),
    fromText: (text) => literalFromText(declared, schema, text),
  };
}

function broken(message: string): Setting {
  const refuse = (): Read => ({ ok: false, message });
  return { secret: false, fallback: refuse, fromText: refuse, fromData: refuse };
}

function secretSetting(key: string, declared: SecretKey<unknown>): Setting {
  const read = (value: unknown): Read => {
    const result = check(declared.schema, value);
    // a schema's message may quote what it refused
    return result.ok
      ? result
      : { ok: false, message: "is a secret that does not pass its rules (its value is not shown)" };
  };
  return {
    secret: true,
    fallback: () => (declared.fallback === undefined ? required(key) : { ok: true, value: declared.fallback }),
    fromData: read,
    fromText: read,
  };
}

function schemaSetting(key: string, schema: z.ZodType): Setting {
  return {
    secret: false,
    fallback: () => {
      const result = schema.safeParse(undefined);
      return result.success ? { ok: true, value: result.data } : required(key);
    },
    fromData: (value) => check(schema, value),
    // the text itself, for strings and coercions; else what it says as JSON: true, 20, ["a"], {"a": 1}
    fromText(text) {
      const asText = check(schema, text);
      if (asText.ok) return asText;
      const json = parseJson(text);
      return json === undefined ? asText : check(schema, json);
    },
  };
}

function required(key: string): Read {
  return {
    ok: false,
    message: `must be set: in the environment as ${key}, in the settings file, or with --set ${key}=…`,
  };
}

function check(schema: z.ZodType, value: unknown): Read {
  const result = schema.safeParse(value, { error: plainly });
  if (result.success) return { ok: true, value: result.data };
  const message = result.error.issues
    .map((issue) => (issue.path.length === 0 ? issue.message : `${issue.path.join(".")}: ${issue.message}`))
    .join("; ");
  return { ok: false, message };
}

/** The schema that a plain default means: its own type; an object may be overridden in part. */
function schemaOfLiteral(value: unknown): z.ZodType | undefined {
  switch (typeof value) {
    case "string":
      return z.string("must be a string");
    case "number":
      return z.number("must be a number");
    case "boolean":
      return z.boolean("must be true or false");
    case "object":
      return value === null ? undefined : schemaOfStructure(value);
    default:
      return undefined;
  }
}

function schemaOfStructure(value: object): z.ZodType | undefined {
  if (Array.isArray(value)) {
    // one schema for each kind of item: a union's message would not say what was expected
    const kinds = new Map(value.map((item: unknown) => [typeof item, schemaOfLiteral(item)]));
    const schemas = [...kinds.values()].filter((schema) => schema !== undefined);
    if (schemas.length < kinds.size) return undefined;
    const [first, ...others] = schemas;
    return z.array(first === undefined ? z.json() : others.length === 0 ? first : z.union([first, ...others]));
  }
  if (Object.getPrototypeOf(value) !== Object.prototype) return undefined;
  const shape: Record<string, z.ZodType> = {};
  for (const [key, part] of Object.entries(value)) {
    const schema = schemaOfLiteral(part);
    if (schema === undefined) return undefined;
    shape[key] = schema.default(part);
  }
  return z.strictObject(shape);
}

function literalFromText(declared: DefaultValue, schema: z.ZodType, text: string): Read {
  switch (typeof declared) {
    case "string":
      return check(schema, text);
    case "number":
      return text.trim() === "" ? { ok: false, message: "must be a number" } : check(schema, Number(text));
    case "boolean":
      return check(z.stringbool("must be true or false"), text);
    default: {
      if (Array.isArray(declared) && !text.trimStart().startsWith("["))
        return check(
          schema,
          text.split(",").map((part) => itemFromText(declared[0], part.trim())),
        );
      const json = parseJson(text);
      return json === undefined
        ? { ok: false, message: Array.isArray(declared) ? "must be a list: a,b,c or JSON" : "must be JSON" }
        : check(schema, json);
    }
  }
}

function itemFromText(example: unknown, text: string): unknown {
  if (typeof example === "number") return Number(text);
  if (typeof example === "boolean") return text === "true" ? true : text === "false" ? false : text;
  return text;
}
