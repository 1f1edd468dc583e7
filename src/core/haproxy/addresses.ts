// Names of hosts as IP addresses. HAProxy would refuse a whole configuration for one name that does not resolve, and a
// server added at run time resolves nothing: so the agent resolves, and only that instance is left out.
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import type { Clock } from "../lib/clock.ts";
import { canonicalAddress } from "./read-back.ts";

export interface Addresses {
  /** Resolves what is not known or old. Resolves within `PATIENCE_MS`, with or without an answer of the name servers. */
  refresh(names: Iterable<string>): Promise<void>;
  /** The last known address, or undefined when there never was one. */
  of(name: string): string | undefined;
}

const FRESH_MS = 30_000;
const PATIENCE_MS = 1_000;

export type AddressesOptions = {
  readonly clock: Clock;
  /** Called when an answer came after `refresh` had given up on it. */
  readonly onLate: () => void;
  /** @default the system's resolver, IPv4 before IPv6 */
  readonly resolve?: (name: string) => Promise<string>;
};

export function createAddresses({ clock, onLate, resolve = resolveBySystem }: AddressesOptions): Addresses {
  const known = new Map<string, { address: string | undefined; at: number }>();
  const asking = new Set<string>();

  const ask = async (name: string): Promise<void> => {
    asking.add(name);
    const before = known.get(name)?.address;
    try {
      known.set(name, { address: canonicalAddress(await resolve(name)), at: clock.now() });
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      // a name server that is away changes nothing: the last known address stays
      known.set(name, { address: before, at: clock.now() });
    } finally {
      asking.delete(name);
    }
  };

  return {
    of: (name) => (isIP(name) === 0 ? known.get(name)?.address : canonicalAddress(name)),
    async refresh(names) {
      const stale = [...new Set(names)].filter(
        (name) =>
          isIP(name) === 0 &&
          !asking.has(name) &&
          (known.get(name)?.at ?? Number.NEGATIVE_INFINITY) + FRESH_MS <= clock.now(),
      );
      if (stale.length === 0) return;
      let patient = true;
      const done = Promise.all(stale.map(ask)).finally(() => {
        if (!patient) onLate();
      });
      const patience = new AbortController();
      await Promise.race([done, clock.sleep(PATIENCE_MS, patience.signal).catch(() => undefined)]);
      patience.abort();
      patient = false;
    },
  };
}

async function resolveBySystem(name: string): Promise<string> {
  return (await lookup(name, { order: "ipv4first" })).address;
}
