// The commands of HAProxy's runtime API that make the servers of one backend as they should be.
import type { Backend, Server } from "./layout.ts";
import { FILES, serverOptions, socketAddress } from "./render.ts";

/** One server as HAProxy runs it. */
export type RunningServer = {
  readonly name: string;
  readonly id: number;
  readonly address: string;
  readonly port: number;
  readonly weight: number;
  readonly drain: boolean;
  readonly maintenance: boolean;
  /** Whether HAProxy's own checks are on; the agent's verdict `down` turns them off. */
  readonly checked: boolean;
  readonly up: boolean;
  /** Whether a request may be pinned to it: it stands in no list of those that are down or leaving. */
  readonly pinnable: boolean;
};

export type Command = {
  readonly text: string;
  /** The backend it changes. */
  readonly backend: string;
  /** It takes something away from clients (a removal, a drain, a verdict): not applied while an older worker still gives it. */
  readonly takes: boolean;
};

export type RunningServers = ReadonlyMap<string, RunningServer>;

/** Backends that were found to fit the servers that ran: with 10,000 of them, only what changed is compared again. */
const fitting = new WeakMap<Backend, RunningServers>();

export function changesOf(backend: Backend, running: RunningServers): readonly Command[] {
  if (fitting.get(backend) === running) return [];
  const commands = removalsOf(backend.name, running, new Set(backend.servers.map(({ name }) => name)));
  const ids = new Set([...running.values()].map(({ id }) => id));
  for (const server of backend.servers) {
    const name = `${backend.name}/${server.name}`;
    const before = running.get(server.name);
    const steps =
      before === undefined
        ? additionOf(name, server, freeId(ids), serverOptions(backend.definition, backend.checks))
        : updateOf(name, server, before);
    for (const step of [...steps, ...pinOf(name, server, before)]) commands.push({ ...step, backend: backend.name });
  }
  if (commands.length === 0) fitting.set(backend, running);
  return commands;
}

/** Out of the balance and out of reach of pins at once; deleting the server itself waits (apply.ts). */
export function removalsOf(backend: string, running: RunningServers, wanted: ReadonlySet<string>): Command[] {
  const commands: Command[] = [];
  for (const { name, maintenance, pinnable } of running.values()) {
    if (wanted.has(name)) continue;
    const key = `${backend}/${name}`;
    if (pinnable) commands.push({ ...takes(`add acl ${FILES.unpinnable} ${key}`), backend });
    if (!maintenance) commands.push({ ...takes(`set server ${key} state maint`), backend });
  }
  return commands;
}

type Step = Omit<Command, "backend">;
const gives = (text: string): Step => ({ text, takes: false });
const takes = (text: string): Step => ({ text, takes: true });

/** The lowest id that no server has. Explicit, since HAProxy before 3.0 loses servers of `random` otherwise (haproxy #3413). */
function freeId(ids: Set<number>): number {
  let id = 1;
  while (ids.has(id)) id += 1;
  ids.add(id);
  return id;
}

/** A new server starts in maintenance; it leaves it through `drain`, so that a verdict stands before the first request. */
function additionOf(name: string, server: Server, id: number, options: string): readonly Step[] {
  return [
    gives(`add server ${name} ${socketAddress(server)} id ${id} weight ${server.share} ${options}`),
    gives(`enable health ${name}`),
    gives(`set server ${name} state drain`),
    ...(server.health === "down" ? down(name) : []),
    ...(server.drain ? [] : [gives(`set server ${name} state ready`)]),
  ];
}

/** `set server … health down` alone is undone by the next check. */
function down(name: string): readonly Step[] {
  return [takes(`disable health ${name}`), takes(`set server ${name} health down`)];
}

function updateOf(name: string, server: Server, before: RunningServer): readonly Step[] {
  const set = `set server ${name}`;
  const steps: Step[] = [];
  // what takes away comes first, what gives comes last: in between, a server never gets what it should not
  if (before.maintenance) steps.push(gives(`enable health ${name}`), gives(`${set} state drain`));
  else if (server.drain && !before.drain) steps.push(takes(`${set} state drain`));
  if (server.health === "down" && (before.maintenance || before.checked || before.up)) steps.push(...down(name));
  if (server.address !== before.address || server.port !== before.port) {
    steps.push(takes(`${set} addr ${server.address} port ${server.port}`));
  }
  if (server.share !== before.weight) steps.push(gives(`${set} weight ${server.share}`));
  if (server.health !== "down" && !before.checked && !before.maintenance) {
    steps.push(gives(`enable health ${name}`));
    if (server.health === "up") steps.push(gives(`${set} health up`));
  }
  if (!server.drain && (before.drain || before.maintenance)) steps.push(gives(`${set} state ready`));
  return steps;
}

/** HAProxy's own verdict counts for pins as the agent's does. A server that was just added is not known to be down. */
function pinOf(name: string, server: Server, before: RunningServer | undefined): readonly Step[] {
  const ownVerdict = before !== undefined && before.checked && !before.up && !before.maintenance;
  const refused = server.health === "down" || ownVerdict;
  if (refused !== (before?.pinnable ?? true)) return [];
  return [refused ? takes(`add acl ${FILES.unpinnable} ${name}`) : gives(`del acl ${FILES.unpinnable} ${name}`)];
}
