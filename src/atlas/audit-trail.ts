// Who wrote what: one line for every write that changed something.
import type { Clock } from "../core/lib/clock.ts";
import type { Logger } from "../core/lib/logger.ts";
import type { MetaStore } from "../core/registry/meta-store.ts";

/** Who writes, as the audit trail will say. */
export type Actor = {
  readonly who: string;
  readonly from: string;
  readonly reason?: string | undefined;
  /** The only host whose instances it may write; undefined: any. */
  readonly confinedTo?: string | undefined;
};

/** What was written. `before` and `after` are the JSON of the thing, null where there was or is none. */
export type Deed = {
  readonly kind: string;
  readonly target: string;
  readonly before: unknown;
  readonly after: unknown;
};

export type AuditTrailOptions = { readonly meta: MetaStore; readonly clock: Clock; readonly logger: Logger };

export class AuditTrail {
  readonly #meta: MetaStore;
  readonly #clock: Clock;
  readonly #logger: Logger;

  constructor({ meta, clock, logger }: AuditTrailOptions) {
    this.#meta = meta;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** Notes a write, if it changed anything. The write stands whether or not this succeeds, so it never fails the write. */
  async note({ changed }: { readonly changed: boolean }, { who, from, reason }: Actor, deed: Deed): Promise<void> {
    if (!changed) return;
    const entry = { at: new Date(this.#clock.now()).toISOString(), who, from, reason, ...deed };
    try {
      await this.#meta.addAudit(entry);
    } catch (error) {
      this.#logger.error({ err: error, audit: entry }, "audit entry could not be stored");
    }
  }
}
