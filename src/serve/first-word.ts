// What the host's sidecar says before anything is started: realm and address of a service are its own unless somebody gave
// them. After a reboot both start at once, and a guess that the sidecar then contradicts would leave the service unknown.
import type { SidecarClient } from "../core/api/sidecar-client.ts";
import type { Clock } from "../core/lib/clock.ts";
import { errorCode, Fault } from "../core/lib/errors.ts";
import type { SidecarInfo } from "../core/model/local.ts";

/** A sidecar that is there but not ready is asked for so long, in ms: its first configuration waits for Atlas 1 s at most. */
const STARTING_MS = 10_000;
const AGAIN_MS = 100;

/** Undefined when there is no sidecar, or none that gets ready in time. */
export async function firstWord(sidecar: Pick<SidecarClient, "info">, clock: Clock): Promise<SidecarInfo | undefined> {
  const end = clock.now() + STARTING_MS;
  while (true) {
    try {
      return await sidecar.info();
    } catch (error) {
      // `unreachable`: nobody is there; `unavailable`: it is starting
      if (errorCode(error) !== "unavailable" || clock.now() >= end) return undefined;
      await clock.sleep(AGAIN_MS);
    }
  }
}

/** What a service took for granted, and whether it was told so (by flags) or guessed because there was no sidecar. */
export type Assumed = { readonly value: string; readonly guessed: boolean };

export function assume(given: string | undefined, sidecars: string | undefined, fallback: string): Assumed {
  return { value: given ?? sidecars ?? fallback, guessed: given === undefined && sidecars === undefined };
}

/** @returns why a service that guessed has to start anew, now that there is a sidecar that knows better */
export function contradiction(what: string, { value, guessed }: Assumed, theirs: string): Fault | undefined {
  if (!guessed || value === theirs) return undefined;
  return new Fault({
    code: "started_too_early",
    message: `started before this host's sidecar was there, with the ${what} ${value}; the sidecar's is ${theirs}, so this ends`,
    hint: "Start it again; a supervisor does.",
  });
}
