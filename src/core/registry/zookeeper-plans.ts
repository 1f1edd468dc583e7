// What a write does to the znodes: the steps of one transaction, each guarded by the version that the decision was made on.
// A step that another writer made untrue fails the whole; then the decision is made again. Pure.
import { Fault } from "../lib/errors.ts";
import { type Registration, sameInstance } from "../model/instance.ts";
import type { RemovalReason } from "../model/snapshot.ts";
import type { InstanceDecision, InstanceRecord, LiveContent } from "./live-store.ts";
import type { Op } from "./zookeeper-client.ts";
import {
  definitionPath,
  enabledPath,
  GENERATION,
  hostsPath,
  metaPath,
  type Reading,
  readEnabled,
  readPort,
  removedPath,
  settingsPath,
  writeMeta,
} from "./zookeeper-nodes.ts";
import type { TreeNode } from "./zookeeper-tree.ts";

/** Finds a node of the mirror. */
export type Find = (path: string) => TreeNode | undefined;

const create = (path: string, data: string): Op => ({ kind: "create", path, data });
const setTo = ({ path, version }: TreeNode, data: string): Op => ({ kind: "set", path, data, version });
const remove = ({ path, version }: TreeNode): Op => ({ kind: "remove", path, version });
const check = ({ path, version }: TreeNode): Op => ({ kind: "check", path, version });
const each = (node: TreeNode | undefined, step: (node: TreeNode) => Op): Op[] =>
  node === undefined ? [] : [step(node)];

/** The texts that Atlas writes. */
const enabledText = (enabled: boolean): string => (enabled ? "True" : "False");

/** The steps of a decision; none when the store already says so. @throws Fault `conflict`, `not_found` */
export function planDecision(
  find: Find,
  service: string,
  name: string,
  current: InstanceRecord | undefined,
  decision: InstanceDecision,
): readonly Op[] {
  switch (decision.kind) {
    case "keep":
      return [];
    case "put":
      return planPut(find, service, name, current, decision.registration, decision.enabled);
    case "intend": {
      if (current === undefined)
        throw new Fault({ code: "not_found", message: `there is no instance ${service}/${name}` });
      if (current.enabled === decision.enabled) return [];
      // all that is kept of an instance that is away is that it is disabled
      if (current.registration === undefined && decision.enabled) return planForget(find, service, name);
      const enabled = find(enabledPath(service, name));
      const text = enabledText(decision.enabled);
      return [
        ...each(find(hostsPath(service, name)), check),
        enabled === undefined ? create(enabledPath(service, name), text) : setTo(enabled, text),
      ];
    }
    case "remove": {
      if (current === undefined) return [];
      const { registration, enabled } = current;
      if (registration === undefined) return decision.forget ? planForget(find, service, name) : [];
      const gone = enabled || decision.forget ? planForget(find, service, name) : planLeave(find, service, name);
      return [...planReason(find, service, name, decision.reason), ...gone];
    }
  }
}

function planPut(
  find: Find,
  service: string,
  name: string,
  current: InstanceRecord | undefined,
  registration: Registration,
  enabled: boolean,
): readonly Op[] {
  const definition = find(definitionPath(service));
  if (definition === undefined)
    throw new Fault({ code: "conflict", message: `${service} is not defined`, hint: "Define the service first." });
  const node = find(hostsPath(service, name));
  const enabledNode = find(enabledPath(service, name));
  const meta = find(metaPath(service, name));
  const known = current?.registration !== undefined && { ...current.registration, enabled: current.enabled };
  const complete = enabledNode !== undefined && meta !== undefined;
  if (known !== false && complete && sameInstance(known, { ...registration, enabled })) return [];

  const port = String(registration.port);
  const guards: Op[] = [{ kind: "check", path: definition.path }];
  if (find(hostsPath(service)) === undefined) guards.push(create(hostsPath(service), ""));
  return [
    ...guards,
    node === undefined
      ? create(hostsPath(service, name), port)
      : keepOrSet(node, port, says(readPort(node.data ?? ""), registration.port)),
    enabledNode === undefined
      ? create(enabledPath(service, name), enabledText(enabled))
      : keepOrSet(enabledNode, enabledText(enabled), says(readEnabled(enabledNode.data ?? "?"), enabled)),
    meta === undefined
      ? create(metaPath(service, name), writeMeta(registration))
      : keepOrSet(meta, writeMeta(registration), meta.data === writeMeta(registration)),
    ...each(find(removedPath(service, name)), remove),
  ];
}

/** A text that already says it, in whatever spelling, stays as somebody wrote it. */
function keepOrSet(node: TreeNode, text: string, keep: boolean): Op {
  return keep ? check(node) : setTo(node, text);
}

function says(reading: Reading<unknown>, value: number | boolean): boolean {
  return reading.ok && reading.value === value;
}

/** Removes all there is of an instance. Somebody's own child keeps the node, empty. */
function planForget(find: Find, service: string, name: string): readonly Op[] {
  const node = find(hostsPath(service, name));
  if (node === undefined) return [];
  const children = [find(enabledPath(service, name)), find(metaPath(service, name))];
  return [
    ...children.flatMap((child) => each(child, remove)),
    node.strangers === undefined ? remove(node) : setTo(node, ""),
  ];
}

/** Leaves of an instance only the operator's intent. */
function planLeave(find: Find, service: string, name: string): readonly Op[] {
  return [
    ...each(find(enabledPath(service, name)), check),
    ...each(find(metaPath(service, name)), remove),
    ...each(find(hostsPath(service, name)), (node) => setTo(node, "")),
  ];
}

function planReason(find: Find, service: string, name: string, reason: RemovalReason): readonly Op[] {
  const node = find(removedPath(service, name));
  if (node !== undefined) return [setTo(node, reason)];
  const directory = find(removedPath(service)) === undefined ? [create(removedPath(service), "")] : [];
  return [...directory, create(removedPath(service, name), reason)];
}

/** Moves a number: of a definition, of settings. @throws Fault `conflict` when it is not at `expected` */
export function planVersion(
  node: TreeNode | undefined,
  path: string,
  what: string,
  current: number | undefined,
  version: number,
  expected: number | undefined,
): readonly Op[] {
  if (current !== expected) {
    throw new Fault({
      code: "conflict",
      message: `${what} changed meanwhile: it is at version ${current ?? "none"}, not ${expected ?? "none"}`,
      hint: "Read it again and repeat.",
    });
  }
  if (current === version) return [];
  return [node === undefined ? create(path, String(version)) : setTo(node, String(version))];
}

/** Steps that belong together. */
export type Group = readonly Op[];

/** Removes a service; the definition last, so that one that broke off can be repeated. @throws Fault `conflict` */
export function planDeleteService(
  find: Find,
  isInstance: (id: string) => boolean,
  service: string,
  force: boolean,
): readonly Group[] {
  const directory = find(hostsPath(service));
  const definition = find(definitionPath(service));
  const nodes = [...(directory?.children?.values() ?? [])];
  const instances = nodes.filter(({ name }) => isInstance(`${service}/${name}`));
  if (instances.length > 0 && !force) {
    throw new Fault({
      code: "conflict",
      message: `${service} still has ${instances.length} ${instances.length === 1 ? "instance" : "instances"}`,
      hint: "Deregister them first, or say force=true to remove them with it.",
    });
  }
  if (definition === undefined && nodes.length === 0) return [];
  const path = hostsPath(service);
  const removals = find(removedPath(service)) === undefined ? [create(removedPath(service), "")] : [];
  const kept = directory?.strangers !== undefined || nodes.some(({ strangers }) => strangers !== undefined);
  return [
    ...(instances.length > 0 ? [removals] : []),
    ...nodes.map(({ name }) => {
      const reason = isInstance(`${service}/${name}`) ? planReason(find, service, name, "deregistered") : [];
      return reason.filter(({ path }) => path !== removedPath(service)).concat(planForget(find, service, name));
    }),
    [
      // an instance that came in between is there, or its own transaction finds the definition gone
      ...(directory === undefined ? [create(path, "")] : []),
      ...(kept ? [] : [{ kind: "remove" as const, path }]),
      ...each(definition, remove),
    ],
  ];
}

/** Makes the tree what a backup says; what is missing first, then what is too much. The generation is the caller's. */
export function planRestore(find: Find, content: LiveContent): readonly Group[] {
  const { definitions, settings, instances, away } = content;
  const wanted = new Map<string, { port: string; enabled: boolean; meta: string | undefined }>();
  for (const one of instances) {
    const { service, instance, port, enabled } = one;
    wanted.set(hostsPath(service, instance), { port: String(port), enabled, meta: writeMeta(one) });
  }
  for (const { service, instance } of away) {
    wanted.set(hostsPath(service, instance), { port: "", enabled: false, meta: undefined });
  }
  const services = new Set([...instances, ...away].map(({ service }) => service));
  const directories = [...services].map((service) => hostsPath(service)).filter((path) => find(path) === undefined);
  const surplus = grandchildrenOf(find, "/hosts").filter(({ path }) => !wanted.has(path));
  return [
    ...planNumbers(find, "/definitions", definitionPath, definitions),
    ...planNumbers(find, "/settings", settingsPath, settings),
    ...directories.map((path) => [create(path, "")]),
    ...[...wanted].map(([path, { port, enabled, meta }]) =>
      [
        planText(find, path, port),
        planText(find, `${path}/enabled`, enabledText(enabled)),
        meta === undefined ? each(find(`${path}/meta`), remove) : planText(find, `${path}/meta`, meta),
      ].flat(),
    ),
    ...surplus.map(({ name, parent }) => planForget(find, parent?.name ?? "", name)),
    ...grandchildrenOf(find, "/removed").map((node) => [remove(node)]),
  ].filter((group) => group.length > 0);
}

/**
 * Drops removals that are of no use: from before `oldest` (ms since the epoch), or of instances that are there.
 * Each alone, so that one that changed meanwhile holds up no other.
 */
export function planPurge(find: Find, oldest: number, present: (id: string) => boolean): readonly Group[] {
  return grandchildrenOf(find, "/removed")
    .filter(({ name, parent, mtime }) => mtime < oldest || present(`${parent?.name}/${name}`))
    .map((node) => [remove(node)]);
}

/** @param number the new generation */
export function planGeneration(find: Find, number: number): Group {
  return each(find(GENERATION), (node) => setTo(node, String(number)));
}

function planNumbers(
  find: Find,
  directory: string,
  pathOf: (service: string) => string,
  wanted: ReadonlyMap<string, number>,
): readonly Group[] {
  const surplus = [...childrenOf(find, directory)].filter(({ name }) => !wanted.has(name));
  const put = [...wanted].map(([service, version]) => planText(find, pathOf(service), String(version)));
  return [...put, ...surplus.map((node) => [remove(node)])];
}

function planText(find: Find, path: string, text: string): Group {
  const node = find(path);
  if (node === undefined) return [create(path, text)];
  return node.data === text ? [] : [setTo(node, text)];
}

function childrenOf(find: Find, path: string): Iterable<TreeNode> {
  return find(path)?.children?.values() ?? [];
}

function grandchildrenOf(find: Find, path: string): readonly TreeNode[] {
  return [...childrenOf(find, path)].flatMap((child) => Array.from(childrenOf(find, child.path)));
}

/** ZooKeeper refuses a request of 1 MB (jute.maxbuffer); a transaction also stands in its log, and in each proposal. */
const LARGEST_BYTES = 256 * 1_024;
/** What a step costs beside its path and data: headers, version, access list. */
const STEP_BYTES = 80;

/** As few transactions as the size allows; a group is never split. */
export function transactionsOf(groups: readonly Group[]): readonly Group[] {
  const transactions: Op[][] = [];
  let room = 0;
  for (const group of groups) {
    const size = group.reduce((sum, op) => sum + STEP_BYTES + op.path.length + ("data" in op ? op.data.length : 0), 0);
    if (size > room || transactions.length === 0) {
      transactions.push([]);
      room = LARGEST_BYTES;
    }
    transactions.at(-1)?.push(...group);
    room -= size;
  }
  return transactions;
}
