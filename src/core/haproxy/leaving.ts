// Servers that were taken out and wait to be deleted. Deleting one right after it was taken out has crashed HAProxy
// (haproxy #2298, #2323, #2378), and as long as it is only in maintenance its instance may return at no cost.
import type { Layout } from "./layout.ts";
import type { Running } from "./plan.ts";

/** How long a server stays in maintenance before it is deleted, in ms. */
export const DELETE_AFTER_MS = 10_000;

export interface Leaving {
  /** Takes note of what is out. @param backends those that were read anew, or undefined: all */
  note(running: Running, layout: Layout, backends: ReadonlySet<string> | undefined, now: number): void;
  has(backend: string, server: string): boolean;
  /** When the next one is due, in ms since the epoch; undefined when none waits. */
  nextAt(): number | undefined;
  /** Those that are due now; each is due again later, in case HAProxy still has a connection to it and refuses. */
  takeDue(now: number): readonly { readonly backend: string; readonly server: string }[];
  /** A reload or restart has dropped them all. */
  clear(): void;
}

export function createLeaving(): Leaving {
  /** Backend → server → since when. */
  const since = new Map<string, Map<string, number>>();
  return {
    note(running, layout, backends, now) {
      const wanted = new Map([...layout.backends.values()].map(({ name, servers }) => [name, servers]));
      for (const backend of backends ?? new Set([...running.servers.keys(), ...since.keys()])) {
        const before = since.get(backend);
        const names = new Set(wanted.get(backend)?.map(({ name }) => name));
        const out = [...(running.servers.get(backend)?.values() ?? [])].filter(
          ({ name, maintenance }) => maintenance && !names.has(name),
        );
        if (out.length === 0) since.delete(backend);
        else since.set(backend, new Map(out.map(({ name }) => [name, before?.get(name) ?? now])));
      }
    },
    has: (backend, server) => since.get(backend)?.has(server) === true,
    nextAt() {
      let first: number | undefined;
      for (const servers of since.values()) for (const at of servers.values()) first = Math.min(first ?? at, at);
      return first === undefined ? undefined : first + DELETE_AFTER_MS;
    },
    takeDue(now) {
      const due = [...since].flatMap(([backend, servers]) =>
        [...servers].filter(([, at]) => at + DELETE_AFTER_MS <= now).map(([server]) => ({ backend, server })),
      );
      for (const { backend, server } of due) since.get(backend)?.set(server, now);
      return due;
    },
    clear: () => since.clear(),
  };
}
