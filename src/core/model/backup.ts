// The lines of a backup: what `export` writes and `import` takes. JSON lines, so that neither side holds a whole realm as one
// text, a person can read a line, and `grep` and `diff` work. The last line counts the others: a file that was cut is noticed.
import { z } from "zod";
import { auditEntrySchema } from "./answers.ts";
import { type Instance, putInstanceSchema, registrationFromPut } from "./instance.ts";
import { hostName, instanceId, instanceNameSchema, port, serviceName } from "./names.ts";
import { positionSchema } from "./position.ts";
import { realmName } from "./realm.ts";
import { type Definition, definitionSchema } from "./service.ts";
import { type SettingsValues, settingsValuesSchema } from "./settings.ts";

/** Moves when a reader of the older form could no longer take what is written. */
export const BACKUP_FORMAT = 1;

const headerSchema = positionSchema.extend({
  kind: z.literal("header"),
  format: z.literal(BACKUP_FORMAT, `is another form of backup than ${BACKUP_FORMAT}, the one this program knows`),
  realm: realmName,
  /** When the state was as it is told here, ISO 8601. */
  at: z.iso.datetime(),
  /** Of the program that wrote it. */
  version: z.string(),
});

const writtenEntrySchema = z.strictObject({ ...auditEntrySchema.shape, before: z.json(), after: z.json() });

/** One line between the header and the end. */
const lineSchema = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("definition"),
    service: serviceName,
    definition: definitionSchema,
    /** What the service itself last published; where the two differ, an operator edited. */
    published: definitionSchema.optional(),
  }),
  z.strictObject({
    kind: z.literal("settings"),
    service: serviceName,
    at: z.string().min(1),
    who: z.string(),
    values: settingsValuesSchema,
    current: z.literal(true).optional(),
  }),
  z.strictObject({ kind: z.literal("port"), service: serviceName, port }),
  putInstanceSchema.required().extend({
    kind: z.literal("instance"),
    service: serviceName,
    instance: instanceNameSchema,
    agent: hostName.nullable(),
  }),
  /** An instance that is away, and stays disabled when it returns. */
  z.strictObject({
    kind: z.literal("intent"),
    service: serviceName,
    instance: instanceNameSchema,
    enabled: z.literal(false),
  }),
  z.strictObject({ kind: z.literal("audit"), entry: writtenEntrySchema }),
]);

const endSchema = z.strictObject({ kind: z.literal("end"), lines: z.int() });

export type BackupHeader = z.output<typeof headerSchema>;
type BackupLine = z.output<typeof lineSchema>;
/** What `export` writes: any line of a backup. */
export type WrittenLine = BackupHeader | BackupLine | z.output<typeof endSchema>;

export type BackupAudit = z.output<typeof writtenEntrySchema>;
export type BackupDefinition = { readonly definition: Definition; readonly published: Definition | undefined };
export type BackupSettings = { readonly values: SettingsValues; readonly at: string; readonly who: string };

/** A whole backup, checked. */
export type Backup = {
  readonly header: BackupHeader;
  readonly definitions: ReadonlyMap<string, BackupDefinition>;
  /** By service, oldest first; the last one counts. */
  readonly settings: ReadonlyMap<string, readonly BackupSettings[]>;
  readonly ports: ReadonlyMap<string, number>;
  /** By `service/instance`. */
  readonly instances: ReadonlyMap<string, Instance>;
  /** Ids of instances that are away and disabled. */
  readonly away: ReadonlySet<string>;
  /** Oldest first. */
  readonly audit: readonly BackupAudit[];
};

/** One line that cannot be used, by its number from 1. Line 0 is the file as a whole. */
export type BackupIssue = { readonly line: number; readonly message: string };

/** Names of kinds, for messages. */
const KINDS = ["definition", "settings", "port", "instance", "intent", "audit"];

/**
 * Takes the lines of a backup one after the other, and says of all of them together whether they are one. Nothing is believed
 * before the end was read.
 */
export class BackupReader {
  readonly issues: BackupIssue[] = [];
  readonly #definitions = new Map<string, BackupDefinition>();
  readonly #settings = new Map<string, BackupSettings[]>();
  /** Services whose current settings were told. */
  readonly #current = new Set<string>();
  readonly #ports = new Map<string, number>();
  readonly #portOwners = new Map<number, string>();
  readonly #instances = new Map<string, Instance>();
  /** Where each instance stood: a missing definition may come later. */
  readonly #instanceLines: { readonly line: number; readonly service: string }[] = [];
  readonly #away = new Set<string>();
  readonly #audit: BackupAudit[] = [];
  #header: BackupHeader | undefined;
  #lines = 0;
  #ended = false;

  /** @param value the parsed JSON of line `line`, numbered from 1 */
  add(line: number, value: unknown): void {
    this.#lines += 1;
    if (this.#ended) this.#complain(line, "stands behind the end");
    else if (this.#lines === 1) this.#begin(line, value);
    else if (kindOf(value) === "end") this.#end(line, value);
    else this.#take(line, value);
  }

  /** A line that is not even JSON. */
  addBroken(line: number, message: string): void {
    this.#lines += 1;
    this.#complain(line, message);
  }

  /** The backup; undefined when anything was wrong with it, then `issues` says what. */
  finish(): Backup | undefined {
    if (this.#lines === 0) this.#complain(0, "it is empty");
    else if (!this.#ended) this.#complain(0, `it breaks off after ${this.#lines} lines: the end is missing`);
    for (const { line, service } of this.#instanceLines) {
      if (!this.#definitions.has(service))
        this.#complain(line, `an instance of ${service}, which has no definition here`);
    }
    for (const service of this.#settings.keys()) {
      if (!this.#current.has(service)) this.#complain(0, `none of the settings of ${service} is the current one`);
    }
    if (this.#header === undefined || this.issues.length > 0) return undefined;
    return {
      header: this.#header,
      definitions: this.#definitions,
      settings: this.#settings,
      ports: this.#ports,
      instances: this.#instances,
      away: this.#away,
      audit: this.#audit,
    };
  }

  #complain(line: number, message: string): void {
    this.issues.push({ line, message });
  }

  #begin(line: number, value: unknown): void {
    if (kindOf(value) !== "header") {
      this.#complain(line, "is no header: this is no backup of smartstack, or its beginning is missing");
      return;
    }
    this.#header = this.#parse(line, headerSchema, value);
  }

  #end(line: number, value: unknown): void {
    this.#ended = true;
    const end = this.#parse(line, endSchema, value);
    if (end !== undefined && end.lines !== this.#lines)
      this.#complain(line, `says that there are ${end.lines} lines, and there are ${this.#lines}`);
  }

  #take(line: number, value: unknown): void {
    if (!KINDS.includes(kindOf(value) ?? "")) {
      this.#complain(line, `is of no kind that this program knows: ${KINDS.join(", ")}`);
      return;
    }
    const parsed = this.#parse(line, lineSchema, value);
    if (parsed === undefined) return;
    const double = this.#keep(line, parsed);
    if (double !== undefined) this.#complain(line, double);
  }

  /** Returns what is wrong with a line that is sound by itself. */
  #keep(line: number, parsed: BackupLine): string | undefined {
    switch (parsed.kind) {
      case "definition": {
        const { service, definition, published } = parsed;
        if (this.#definitions.has(service)) return `defines ${service} again`;
        this.#definitions.set(service, { definition, published });
        return undefined;
      }
      case "settings": {
        const { service, values, at, who, current } = parsed;
        if (this.#current.has(service)) return `settings of ${service} behind the current ones`;
        const history = this.#settings.get(service) ?? [];
        history.push({ values, at, who });
        this.#settings.set(service, history);
        if (current === true) this.#current.add(service);
        return undefined;
      }
      case "port": {
        if (this.#ports.has(parsed.service)) return `reserves a port for ${parsed.service} again`;
        const owner = this.#portOwners.get(parsed.port);
        if (owner !== undefined) return `port ${parsed.port} is ${owner}'s already`;
        this.#ports.set(parsed.service, parsed.port);
        this.#portOwners.set(parsed.port, parsed.service);
        return undefined;
      }
      case "instance": {
        const { kind: _, service, instance, enabled, agent, ...put } = parsed;
        const registration = registrationFromPut(service, instance, { ...put, ...(agent === null ? {} : { agent }) });
        if (this.#instances.has(registration.id) || this.#away.has(registration.id))
          return `tells of ${registration.id} again`;
        this.#instances.set(registration.id, { ...registration, enabled });
        this.#instanceLines.push({ line, service });
        return undefined;
      }
      case "intent": {
        const id = instanceId(parsed.service, parsed.instance);
        if (this.#instances.has(id) || this.#away.has(id)) return `tells of ${id} again`;
        this.#away.add(id);
        return undefined;
      }
      case "audit":
        this.#audit.push(parsed.entry);
        return undefined;
    }
  }

  #parse<T>(line: number, schema: z.ZodType<T>, value: unknown): T | undefined {
    const parsed = schema.safeParse(value);
    if (parsed.success) return parsed.data;
    const reasons = parsed.error.issues.map((issue) => {
      const path = issue.path.join(".");
      const reason = issue.code === "unrecognized_keys" ? `unknown: ${issue.keys.join(", ")}` : issue.message;
      return path === "" ? reason : `${path}: ${reason}`;
    });
    this.#complain(line, reasons.join("; "));
    return undefined;
  }
}

function kindOf(value: unknown): string | undefined {
  if (typeof value !== "object" || value === null || !("kind" in value)) return undefined;
  return typeof value.kind === "string" ? value.kind : undefined;
}
