// The slow half of the registry: versions of definitions and settings, ports, the audit trail. Larger, written rarely,
// never on the path of live state. DynamoDB in a cluster, SQLite embedded; contract.ts holds both to this text.
import type { Definition } from "../model/service.ts";
import type { Settings, SettingsValues } from "../model/settings.ts";

/** Who wrote what. `before` and `after` are the JSON of the thing, null where there was or is none. */
export type AuditEntry = {
  /** ISO 8601, UTC, milliseconds. */
  readonly at: string;
  readonly who: string;
  /** The peer's address. */
  readonly from: string;
  /** `definition.put`, `instance.patch`, `settings.put`, … */
  readonly kind: string;
  /** `identity`, `identity/host001`, … */
  readonly target: string;
  readonly reason?: string | undefined;
  readonly before: unknown;
  readonly after: unknown;
};

/**
 * One immutable version of a definition: what counts, and what the service itself last published. Where the two differ, an
 * operator edited; `mergePublished` keeps his edits when the service publishes again.
 */
export type DefinitionVersion = { readonly definition: Definition; readonly published: Definition | undefined };

export type PortReservation = { readonly service: string; readonly port: number };

/** Audit entries that a store has not told the others yet, and how many it could not keep since the start. */
export type AuditBacklog = { readonly waiting: number; readonly dropped: number };

export interface MetaStore {
  open(): Promise<void>;
  close(): Promise<void>;

  /** Stores an immutable version and returns its number, higher than any before it of that service (also of a deleted one). */
  addDefinition(service: string, version: DefinitionVersion): Promise<number>;
  /** @throws Fault `meta_missing` when that version does not exist: unreadable metadata is never replaced by defaults */
  definition(service: string, version: number): Promise<DefinitionVersion>;
  /** The newest version that can be read, whether it ever counted or not: for when the one that counts is lost. */
  newestDefinition(service: string): Promise<DefinitionVersion | undefined>;

  addSettings(service: string, values: SettingsValues, at: string, who: string): Promise<number>;
  settings(service: string, version: number): Promise<Settings>;
  /** Newest first. */
  settingsHistory(
    service: string,
    limit: number,
  ): Promise<readonly (Settings & { readonly at: string; readonly who: string })[]>;

  /**
   * Reserves the service's port, or returns the one it has. Ports are unique in the realm, 5000–29999, lowest free first.
   * `taken` are further ports nobody may get (localPort of TCP services).
   * @throws Fault `conflict` when none is free
   */
  reservePort(service: string, taken: ReadonlySet<number>): Promise<PortReservation & { readonly created: boolean }>;
  ports(): Promise<readonly PortReservation[]>;
  /** False when there was none. */
  releasePort(service: string): Promise<boolean>;
  /** Makes the reservations exactly these, for a restore. */
  replacePorts(ports: readonly PortReservation[]): Promise<void>;

  addAudit(entry: AuditEntry): Promise<void>;
  /** Newest first. */
  audit(limit: number): Promise<readonly AuditEntry[]>;
  /** Absent where entries never wait. */
  auditBacklog?(): AuditBacklog;

  /** Why metadata cannot be written now, or undefined. */
  degraded(): string | undefined;
}
