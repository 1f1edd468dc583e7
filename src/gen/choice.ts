// The port of a new service, and in words where it comes from.
import type { AtlasClient } from "../core/api/atlas-client.ts";
import { Fault } from "../core/lib/errors.ts";
import { FIRST_PORT, holdFreePort, holdPort, LAST_PORT, neighbourPorts, readProject } from "./port.ts";
import { type Answer, release, type Reservation, reservations, reserve } from "./reservation.ts";

export type PortRequest = {
  readonly service: string;
  /** What `--port` said. */
  readonly given: number | undefined;
  /** The directory that the project will be. */
  readonly target: string;
  /** Undefined: Atlas is out of reach, so do without. */
  readonly atlas: AtlasClient | undefined;
  /** Look, reserve nothing. */
  readonly dryRun: boolean;
};

export type PortChoice = {
  readonly port: number;
  /** `reserved in Atlas`, `free here, no Atlas`, … */
  readonly origin: string;
  /** Something the user should know, though it stops nothing. */
  readonly note?: string | undefined;
  /** Lets go of the port on this machine, once the project is in place. */
  release(): Promise<void>;
  /** Gives a reservation that was made for this run back to Atlas. */
  undo(): Promise<void>;
};

/**
 * In this order: what `--port` says, what the project in `target` already has, Atlas's reservation, the lowest port that is
 * free as far as this machine knows.
 * @throws Fault `unreachable` when Atlas fell silent over the reservation; Fault `taken` when `--port` names a port that Atlas reserved for another service; Fault `no_port` when none is free
 */
export async function choosePort(request: PortRequest): Promise<PortChoice> {
  const { given, target, service, atlas, dryRun } = request;
  if (given !== undefined) return chooseGiven(given, request);
  const own = (await readProject(target)).port;
  if (own !== undefined) return plain(own, "as before");
  if (atlas === undefined) return chooseHere(target, "no Atlas");
  const answer = dryRun ? await foresee(atlas, service) : await reserve(atlas, service);
  if (answer.kind === "unknown") {
    // it was there a moment ago, and perhaps it did reserve: a port of our own choice could be somebody else's by now
    if (answer.reason !== "refused" && !dryRun)
      throw new Fault({ code: "unreachable", message: answer.why, hint: "Try again, or choose a port with --port." });
    return { ...(await chooseHere(target, "not from Atlas")), note: answer.why };
  }
  const { port, created } = answer.value;
  const origin = created ? `${dryRun ? "free" : "reserved"} in Atlas` : "reserved in Atlas before";
  return {
    ...(await claim(port, origin, target)),
    async undo() {
      if (created && !dryRun) await release(atlas, service);
    },
  };
}

async function chooseGiven(port: number, { service, atlas, target }: PortRequest): Promise<PortChoice> {
  const known = atlas === undefined ? undefined : await reservations(atlas);
  const owner = known?.kind === "known" ? known.value.find((reservation) => reservation.port === port) : undefined;
  if (owner !== undefined && owner.service !== service)
    throw new Fault({
      code: "taken",
      message: `port ${port} is reserved for ${owner.service} in Atlas`,
      hint: "Leave --port out, and Atlas reserves a free one.",
    });
  return claim(port, owner === undefined ? "given" : "given, reserved in Atlas", target);
}

async function chooseHere(target: string, why: string): Promise<PortChoice> {
  const held = await holdFreePort(() => neighbourPorts(target));
  return { ...plain(held.port, `free here, ${why}`), release: () => held.release() };
}

/** A port that was decided elsewhere: held while it can be, with a remark when something on this machine has it, too. */
async function claim(port: number, origin: string, target: string): Promise<PortChoice> {
  const held = await holdPort(port);
  if (held === undefined) return { ...plain(port, origin), note: `something on this machine listens on port ${port}` };
  const named = (await neighbourPorts(target)).has(port);
  return {
    ...plain(port, origin),
    note: named ? `a project beside this one has port ${port}, too` : undefined,
    release: () => held.release(),
  };
}

function plain(port: number, origin: string): PortChoice {
  return { port, origin, release: async () => undefined, undo: async () => undefined };
}

/** What `reserve` would answer: the service's port, or the lowest that nobody reserved. */
async function foresee(
  atlas: AtlasClient,
  service: string,
): Promise<Answer<{ readonly port: number; readonly created: boolean }>> {
  const answer = await reservations(atlas);
  if (answer.kind === "unknown") return answer;
  return { kind: "known", value: nextPort(answer.value, service) };
}

function nextPort(
  known: readonly Reservation[],
  service: string,
): { readonly port: number; readonly created: boolean } {
  const own = known.find((reservation) => reservation.service === service);
  if (own !== undefined) return { port: own.port, created: false };
  const taken = new Set(known.map(({ port }) => port));
  for (let port = FIRST_PORT; port <= LAST_PORT; port += 1) if (!taken.has(port)) return { port, created: true };
  throw new Fault({ code: "no_port", message: "every port of the realm is reserved" });
}
