// Writes of settings: immutable versions, and If-Match against overwriting what somebody else wrote.
import { isDeepStrictEqual } from "node:util";
import type { Clock } from "../core/lib/clock.ts";
import { ProblemFault } from "../core/lib/http.ts";
import type { SettingsValues } from "../core/model/settings.ts";
import type { Actor } from "./audit-trail.ts";
import { type OperationsOptions, type Outcome, unmoved } from "./operations.ts";

export class SettingsOperations {
  readonly #on: OperationsOptions;
  readonly #clock: Clock;

  constructor(on: OperationsOptions, clock: Clock) {
    this.#on = on;
    this.#clock = clock;
  }

  /**
   * @param expected the version the writer saw, from If-Match; undefined: any
   * @throws ProblemFault `stale` when it is another one
   */
  put(
    service: string,
    values: SettingsValues,
    expected: number | undefined,
    actor: Actor,
  ): Promise<Outcome & { readonly version: number }> {
    return this.#set(service, values, expected, "settings.put", actor);
  }

  /** Back to nothing set; the history stays. */
  delete(service: string, expected: number | undefined, actor: Actor): Promise<Outcome & { readonly version: number }> {
    return this.#set(service, {}, expected, "settings.delete", actor);
  }

  #set(
    service: string,
    values: SettingsValues,
    expected: number | undefined,
    kind: string,
    actor: Actor,
  ): Promise<Outcome & { readonly version: number }> {
    const { registry, live, meta, audit, metadata } = this.#on;
    return metadata(async () => {
      const current = await registry.settings(service);
      if (expected !== undefined && expected !== current.version) {
        throw new ProblemFault(
          "stale",
          `the settings of ${service} are at version ${current.version}, not ${expected}; read them again`,
          { headers: { etag: etagOf(current.version) } },
        );
      }
      if (isDeepStrictEqual(current.values, values))
        return { ...unmoved(live, false), created: false, version: current.version };
      const at = new Date(this.#clock.now()).toISOString();
      const version = await meta.addSettings(service, values, at, actor.who);
      const written = await live.setSettings(service, version, current.version || undefined);
      await audit.note(written, actor, { kind, target: service, before: current.values, after: values });
      return { ...written, created: current.version === 0, version };
    });
  }
}

/** The strong ETag of a settings version. */
export function etagOf(version: number): string {
  return `"${version}"`;
}
