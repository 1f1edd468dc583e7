// smartstack.yaml: what a service directory is, and what its service publishes about itself.
import { z } from "zod";
import { Fault } from "../core/lib/errors.ts";
import { fieldErrors } from "../core/lib/http.ts";
import { plainly } from "../core/lib/plainly.ts";
import { port, serviceName } from "../core/model/names.ts";
import { type Definition, definitionSchema } from "../core/model/service.ts";
import { type FileIssue, parseYaml, type YamlFile } from "./yaml.ts";

const { healthcheck, split: _operators, ...published } = definitionSchema.shape;

const manifestSchema = z
  .strictObject({
    name: serviceName,
    /** The file whose default export is the service. */
    entry: z.string().min(1).optional(),
    /** Any program instead, in any language. */
    command: z.array(z.string()).min(1, "must name a program").optional(),
    port: port.optional(),
    /** A path alone, or the whole of it. */
    healthcheck: z.preprocess((given) => (typeof given === "string" ? { path: given } : given), healthcheck.optional()),
    ...published,
  })
  .refine(({ entry, command }) => entry === undefined || command === undefined, {
    path: ["command"],
    message: "a service has an entry or a command, not both",
  });

export type Manifest = {
  readonly name: string;
  /** Relative to the directory. */
  readonly run:
    | { readonly kind: "entry"; readonly file: string }
    | { readonly kind: "command"; readonly command: readonly string[] };
  readonly port: number | undefined;
  readonly definition: Definition;
};

/** A smart service is not ready before its critical checks pass; of another program only its own word is known. */
const HEALTHCHECK_PATH = { entry: "/readyz", command: "/healthcheck" } as const;

/**
 * @param path as it stands in messages
 * @throws Fault `config` that names every bad line
 */
export function parseManifest(text: string, path: string): Manifest {
  const file = parseYaml(text);
  if (file.issues.length > 0) throw manifestFault(path, file.issues);
  const result = manifestSchema.safeParse(file.values, { error: plainly });
  if (!result.success) throw manifestFault(path, issuesOf(result.error, file));
  const { name, entry, command, port: portNumber } = result.data;
  const run: Manifest["run"] =
    command === undefined ? { kind: "entry", file: entry ?? "service.ts" } : { kind: "command", command };
  // from the file as written: what it leaves out of the healthcheck takes the default of its kind
  const { name: _name, entry: _entry, command: _command, port: _port, healthcheck: given, ...rest } = file.values;
  const check = typeof given === "string" ? { path: given } : (given ?? {});
  const written = { ...rest, healthcheck: { path: HEALTHCHECK_PATH[run.kind], ...check } };
  const definition = definitionSchema.safeParse(written, { error: plainly });
  if (!definition.success) throw manifestFault(path, issuesOf(definition.error, file));
  return { name, run, port: portNumber, definition: definition.data };
}

function issuesOf(error: z.ZodError, file: YamlFile): readonly FileIssue[] {
  return fieldErrors(error).map(({ path, message }) => ({ line: file.lineOf(path.split(".")), key: path, message }));
}

/** What a service without a smartstack.yaml publishes. */
export function plainManifest(name: string, run: Manifest["run"], healthcheckPath?: string): Manifest {
  const path = healthcheckPath ?? HEALTHCHECK_PATH[run.kind];
  return { name, run, port: undefined, definition: definitionSchema.parse({ healthcheck: { path } }) };
}

function manifestFault(path: string, issues: readonly FileIssue[]): Fault {
  return new Fault({
    code: "config",
    message: issues
      .map(({ line, key, message }) => `${path}:${line}: ${key === "" ? "" : `${key}: `}${message}`)
      .join("\n"),
  });
}
