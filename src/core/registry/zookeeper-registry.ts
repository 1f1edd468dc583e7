// The registry in ZooKeeper as this replica sees it: publishes a state each time the mirror is exact, and never two states
// under one position. A log that goes back (ZooKeeper was wiped, or restored from a backup) ends the generation.
import type { Clock } from "../lib/clock.ts";
import { errorCode } from "../lib/errors.ts";
import type { Logger } from "../lib/logger.ts";
import { parseInstanceId } from "../model/names.ts";
import type { InstanceRecord, LiveChange, LiveState } from "./live-store.ts";
import type { NodeEvent, Op, Zxid } from "./zookeeper-client.ts";
import {
  definitionPath,
  enabledPath,
  GENERATION,
  hostsPath,
  metaPath,
  readNumber,
  REGISTRY_ROOTS,
  removedPath,
  settingsPath,
} from "./zookeeper-nodes.ts";
import { advance, changesBetween, type Held, NOTHING, readInstance, type Znodes } from "./zookeeper-state.ts";
import { type Reads, type TreeNode, ZooKeeperTree } from "./zookeeper-tree.ts";
import { Milestones } from "./zookeeper-waits.ts";

export type RegistryMirrorOptions = {
  /** The time of day. */
  readonly clock: Clock;
  /** Of the network: never a test's. */
  readonly timers: Clock;
  readonly logger: Logger;
  readonly onChange: (change: LiveChange) => void;
  /** Tells of directories that are missing. */
  readonly onMissing: (path: string) => void;
  readonly commit: (ops: readonly Op[]) => Promise<Zxid>;
};

export class RegistryMirror {
  readonly #options: RegistryMirrorOptions;
  readonly #tree: ZooKeeperTree;
  readonly #znodes: Znodes;
  readonly #published = new Milestones();
  #touched = untouched();
  #held: Held = NOTHING;
  #problems: ReadonlyMap<string, string> = new Map();
  #problemSources: readonly ReadonlyMap<string, string>[] = [];
  /** ZooKeeper's log is not the one that this generation was published from. */
  #rewritten = false;
  #scheduled = false;
  #raising = false;

  constructor(options: RegistryMirrorOptions) {
    this.#options = options;
    this.#tree = new ZooKeeperTree({
      roots: REGISTRY_ROOTS,
      onTouched: (node) => this.#touch(node),
      onSettled: () => this.#schedule(),
      onRewound: () => {
        this.#rewritten = this.#held !== NOTHING;
      },
      onMissing: options.onMissing,
    });
    this.#znodes = znodesOf(this.#tree);
  }

  /** The highest zxid that was seen. */
  get highest(): Zxid {
    return this.#tree.highest;
  }

  /** Undefined until the first state was published. */
  get state(): LiveState | undefined {
    return this.#held === NOTHING ? undefined : this.#held.state;
  }

  /** Ids of instances that are away and disabled. */
  get away(): ReadonlyMap<string, true> {
    return this.#held.away;
  }

  /** What is ignored and why, by path. */
  get problems(): ReadonlyMap<string, string> {
    return this.#problems;
  }

  /** @param rewritten the log was seen to go back */
  begin(reads: Reads, rewritten: boolean): void {
    this.#rewritten ||= rewritten && this.#held !== NOTHING;
    this.#published.leave();
    this.#tree.begin(reads);
  }

  end(): void {
    this.#published.lose();
    this.#tree.end();
  }

  /** Resolves when everything that was told by now is published. */
  async current(): Promise<void> {
    if (!this.#tree.settled || this.#scheduled) this.#published.leave();
    await this.#published.at(0);
  }

  /** Resolves when everything up to `zxid` is published. */
  shown(zxid: Zxid): Promise<void> {
    return this.#published.at(zxid);
  }

  retry(): void {
    this.#tree.retry();
  }

  heard(event: NodeEvent): void {
    this.#tree.heard(event);
  }

  /** What a decision sees of an instance: newer than what is published, when there is more. */
  record(id: string): InstanceRecord | undefined {
    if (this.#znodes.instance(id) === undefined) return undefined;
    const { instance, enabled } = readInstance(id, this.#znodes, this.#held);
    if (instance === undefined) return { registration: undefined, enabled };
    const { enabled: _, ...registration } = instance;
    return { registration, enabled };
  }

  find(path: string): TreeNode | undefined {
    return this.#tree.find(path);
  }

  /** A generation after all that were. */
  nextGeneration(): number {
    const reading = readNumber(this.find(GENERATION)?.data ?? "");
    const last = Math.max(this.#held.state.generation, reading.ok ? reading.value : 0);
    return Math.max(last + 1, Math.floor(this.#options.clock.now() / 1_000));
  }

  #touch({ path }: TreeNode): void {
    const [, root, service, instance] = path.split("/");
    if (service === undefined) return;
    if (root === "definitions") this.#touched.definitions.add(service);
    else if (root === "settings") this.#touched.settings.add(service);
    else if (instance !== undefined) this.#touched.instances.add(`${service}/${instance}`);
  }

  /** After all that arrived together. */
  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      if (this.#tree.settled) this.#publish();
    });
  }

  #publish(): void {
    const generation = this.#generation();
    if (generation === undefined) {
      if (!this.#raising) void this.#raise();
      return;
    }
    const before = this.#held;
    const touched = this.#touched;
    const { revision, highest } = this.#tree;
    this.#touched = untouched();
    this.#rewritten = false;
    this.#held = advance(before, { generation, revision }, touched, this.#znodes);
    this.#tellProblems();
    const changes = before === NOTHING ? [] : changesBetween(before, this.#held, touched);
    for (const change of changes) this.#options.onChange(change);
    this.#published.reach(highest);
  }

  /** The generation of what the mirror shows; undefined when it must be a new one first. */
  #generation(): number | undefined {
    const reading = readNumber(this.find(GENERATION)?.data ?? "");
    if (!reading.ok) return undefined;
    const last = this.#held.state;
    if (reading.value > last.generation) return reading.value;
    // within one generation nothing goes back
    const follows = reading.value === last.generation && !this.#rewritten && this.#tree.revision >= last.revision;
    return follows ? reading.value : undefined;
  }

  /** One of the replicas does it; the watch on the node tells all of them. */
  async #raise(): Promise<void> {
    const node = this.find(GENERATION);
    if (node === undefined) return;
    this.#raising = true;
    const { logger, timers } = this.#options;
    const next = this.nextGeneration();
    try {
      await this.#options.commit([{ kind: "set", path: GENERATION, data: String(next), version: node.version }]);
      logger.warn({ generation: next }, "ZooKeeper was wiped or set back: a new generation begins");
    } catch (error) {
      // another replica was first, or the connection broke: what comes next is published, or raised
      if (errorCode(error) !== "bad_version" && errorCode(error) !== "connection_loss") {
        logger.error({ err: error }, "the generation cannot be raised; trying again");
        await timers.sleep(1_000);
      }
    } finally {
      this.#raising = false;
    }
    if (this.#tree.settled) this.#schedule();
  }

  #tellProblems(): void {
    const last = this.#problems;
    const sources = [this.#tree.problems, this.#held.problems];
    if (sources.every((source, index) => source === this.#problemSources[index])) return;
    this.#problemSources = sources;
    const now = new Map(sources.flatMap((source) => Array.from(source)));
    tellDifference(this.#options.logger, last, now);
    this.#problems = now;
  }
}

/** Each problem once when it comes, and once when it goes. */
export function tellDifference(
  logger: Logger,
  last: ReadonlyMap<string, string>,
  now: ReadonlyMap<string, string>,
): void {
  for (const [path, problem] of now) if (last.get(path) !== problem) logger.warn({ path }, `${path} ${problem}`);
  for (const path of last.keys()) if (!now.has(path)) logger.info({ path }, `${path} is fine again`);
}

function untouched() {
  return { instances: new Set<string>(), definitions: new Set<string>(), settings: new Set<string>() };
}

function znodesOf(tree: ZooKeeperTree): Znodes {
  const text = (path: string) => {
    const node = tree.find(path);
    return node === undefined ? undefined : (node.data ?? null);
  };
  return {
    instance(id) {
      const { service, instance } = parseInstanceId(id);
      const port = text(hostsPath(service, instance));
      if (port === undefined) return undefined;
      return { port, enabled: text(enabledPath(service, instance)), meta: text(metaPath(service, instance)) };
    },
    removal(id) {
      const { service, instance } = parseInstanceId(id);
      const node = tree.find(removedPath(service, instance));
      return node === undefined ? undefined : { reason: node.data ?? null, revision: node.mzxid };
    },
    definition: (service) => text(definitionPath(service)),
    settings: (service) => text(settingsPath(service)),
  };
}
