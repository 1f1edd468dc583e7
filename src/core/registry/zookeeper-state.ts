// From znodes to the state that everybody sees, and what changed between two of them. Pure.
import { type Instance, sameInstance } from "../model/instance.ts";
import { parseInstanceId } from "../model/names.ts";
import type { Position } from "../model/position.ts";
import type { RemovalReason } from "../model/snapshot.ts";
import { CopyOnWrite } from "./copy-on-write.ts";
import type { LiveChange, LiveState } from "./live-store.ts";
import {
  definitionPath,
  enabledPath,
  hostsPath,
  type Meta,
  metaPath,
  type Reading,
  readEnabled,
  readMeta,
  readNumber,
  readPort,
  readReason,
  registrationOf,
  removedPath,
  settingsPath,
} from "./zookeeper-nodes.ts";

/** A node's text; null: it is there and cannot be read; undefined: it is not there. */
type Text = string | null | undefined;

/** The znodes at one moment. */
export interface Znodes {
  /** The texts of an instance's node and its children; undefined: there is no such node. */
  instance(id: string): { readonly port: string | null; readonly enabled: Text; readonly meta: Text } | undefined;
  removal(id: string): { readonly reason: string | null; readonly revision: number } | undefined;
  definition(service: string): Text;
  settings(service: string): Text;
}

/** What may have changed: ids of instances (removals are of the same ids) and services. */
export type Touched = {
  readonly instances: ReadonlySet<string>;
  readonly definitions: ReadonlySet<string>;
  readonly settings: ReadonlySet<string>;
};

export type Held = {
  readonly state: LiveState;
  /** Ids of instances that are away and disabled. */
  readonly away: ReadonlyMap<string, true>;
  /** What is ignored and why, by path. */
  readonly problems: ReadonlyMap<string, string>;
};

/** Before anything was read. */
export const NOTHING: Held = {
  state: {
    generation: 0,
    revision: 0,
    definitions: new Map(),
    settings: new Map(),
    instances: new Map(),
    removed: new Map(),
  },
  away: new Map(),
  problems: new Map(),
};

/**
 * The state at `position`. What makes no sense is ignored: the last good value stays, and where there was none, the default.
 * Costs what was touched, and a copy of each map that changes.
 */
export function advance(held: Held, position: Position, touched: Touched, znodes: Znodes): Held {
  const definitions = new CopyOnWrite(held.state.definitions);
  const settings = new CopyOnWrite(held.state.settings);
  const instances = new CopyOnWrite(held.state.instances);
  const removed = new CopyOnWrite(held.state.removed);
  const away = new CopyOnWrite(held.away);
  const problems = new CopyOnWrite(held.problems);
  const told: Tell = (path, problem) => problems.set(path, problem);

  for (const id of touched.instances) {
    const before = held.state.instances.get(id);
    const seen = readInstance(id, znodes, held, told);
    // where it made no sense other replicas may have had another value at the same position: then it is told, even if same
    const same =
      before !== undefined &&
      seen.instance !== undefined &&
      sameInstance(before, seen.instance) &&
      !wasGarbled(held, id);
    if (!same) instances.set(id, seen.instance);
    away.set(id, seen.instance === undefined && !seen.enabled ? true : undefined);

    const removal = znodes.removal(id);
    const { service, instance } = parseInstanceId(id);
    const last = held.state.removed.get(id);
    const reason = value(removal?.reason, readReason, removedPath(service, instance), last?.reason, told);
    // somebody brought it back by hand: the reason of its last absence is of no use any more
    if (removal === undefined || reason === undefined || seen.instance !== undefined) removed.set(id, undefined);
    else if (last?.revision !== removal.revision) removed.set(id, { id, reason, revision: removal.revision });
  }
  for (const service of touched.definitions) {
    const last = held.state.definitions.get(service);
    const text = znodes.definition(service);
    definitions.set(service, value(text, readNumber, definitionPath(service), last, told));
  }
  for (const service of touched.settings) {
    const last = held.state.settings.get(service);
    settings.set(service, value(znodes.settings(service), readNumber, settingsPath(service), last, told));
  }
  return {
    state: {
      ...position,
      definitions: definitions.now,
      settings: settings.now,
      instances: instances.now,
      removed: removed.now,
    },
    away: away.now,
    problems: problems.now,
  };
}

/**
 * What to tell of the step from one state to the next. Where a node made no sense before, another replica that started later
 * has no last good value, and watchers come from there: what becomes of such a node is told, even if nothing changed here.
 */
export function changesBetween(held: Held, { state }: Held, touched: Touched): readonly LiveChange[] {
  const before = held.state;
  if (before.generation !== state.generation) return [{ kind: "reset", state }];
  const settings = [...touched.settings]
    .filter(
      (service) =>
        before.settings.get(service) !== state.settings.get(service) || held.problems.has(settingsPath(service)),
    )
    .map((service) => ({ kind: "settings" as const, state, service }));
  return before.revision === state.revision ? settings : [registryChange(held, state, touched), ...settings];
}

function registryChange(held: Held, state: LiveState, touched: Touched): LiveChange {
  const before = held.state;
  const definitions = new Map<string, number>();
  const deletedDefinitions: string[] = [];
  for (const service of touched.definitions) {
    const version = state.definitions.get(service);
    const garbled = held.problems.has(definitionPath(service));
    if (version === undefined) {
      if (before.definitions.has(service) || garbled) deletedDefinitions.push(service);
    } else if (version !== before.definitions.get(service) || garbled) definitions.set(service, version);
  }
  const put: Instance[] = [];
  const deleted: { id: string; reason?: RemovalReason }[] = [];
  for (const id of touched.instances) {
    const instance = state.instances.get(id);
    if (instance === undefined) {
      const reason = state.removed.get(id)?.reason;
      if (before.instances.has(id) || wasGarbled(held, id))
        deleted.push(reason === undefined ? { id } : { id, reason });
    } else if (instance !== before.instances.get(id)) put.push(instance);
  }
  return {
    kind: "change",
    state,
    since: before.revision,
    definitions: { put: definitions, delete: deletedDefinitions },
    instances: { put, delete: deleted },
  };
}

function wasGarbled({ problems }: Held, id: string): boolean {
  if (problems.size === 0) return false;
  const { service, instance } = parseInstanceId(id);
  return [hostsPath, enabledPath, metaPath].some((pathOf) => problems.has(pathOf(service, instance)));
}

/** Remembers or withdraws what is wrong with a node. */
type Tell = (path: string, problem: string | undefined) => void;

/** An instance as its znodes say now; where they make no sense, as `held` has it. */
export function readInstance(
  id: string,
  znodes: Znodes,
  held: Held,
  tell: Tell = () => undefined,
): { readonly instance: Instance | undefined; readonly enabled: boolean } {
  const { service, instance: name } = parseInstanceId(id);
  const nodes = znodes.instance(id);
  const before = held.state.instances.get(id);
  const lastEnabled = before?.enabled ?? !held.away.has(id);
  const port = value(nodes?.port, readPort, hostsPath(service, name), before?.port, tell);
  const enabled = value(nodes?.enabled, readEnabled, enabledPath(service, name), lastEnabled, tell) ?? true;
  const meta = value<Meta>(nodes?.meta, readMeta, metaPath(service, name), before, tell) ?? {};
  if (port === undefined) return { instance: undefined, enabled };
  return { instance: { ...registrationOf(service, name, port, meta), enabled }, enabled };
}

/** What a node says; the last good value when it says nothing that makes sense; undefined when it is not there. */
function value<T>(text: Text, read: (text: string) => Reading<T>, path: string, last: T | undefined, tell: Tell) {
  const reading = typeof text === "string" ? read(text) : undefined;
  const ok = reading === undefined || reading.ok;
  const stays = last === undefined ? "it is ignored" : "what it said before stays";
  tell(path, ok ? undefined : `${reading.problem}; ${stays}`);
  if (text === undefined) return undefined;
  return reading?.ok === true ? reading.value : last;
}
