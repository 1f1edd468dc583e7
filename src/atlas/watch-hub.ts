// Who watches, and what they are sent. A change is merged, filtered and put into bytes once per group of watchers that want
// the same services; then the same bytes go to each of them.
import { type Cancel, type Clock } from "../core/lib/clock.ts";
import { type Coalesced, coalesce } from "../core/lib/coalesce.ts";
import { describeError } from "../core/lib/errors.ts";
import { ProblemFault } from "../core/lib/http.ts";
import type { Logger } from "../core/lib/logger.ts";
import { type Serial, serial } from "../core/lib/serial.ts";
import { formatSse } from "../core/lib/sse.ts";
import { formatPosition, type Position } from "../core/model/position.ts";
import { type Delta, mergeDeltas } from "../core/model/snapshot.ts";
import type { Caller } from "./access.ts";
import { DeltaLog, type DeltaLogOptions } from "./delta-log.ts";
import type { Registry } from "./registry.ts";
import { filterDelta, filterSnapshot, isEmptyDelta } from "./watch-filter.ts";
import { type StreamEnd, Watcher } from "./watcher.ts";

/** The first change leaves at once; those within this time after it share a delta. */
const COALESCE_MS = 20;
const HEARTBEAT_MS = 5_000;

export type WatchRequest = {
  /** Where the watcher was; undefined: it has nothing. */
  readonly since: Position | undefined;
  /** Only these services; undefined: all. */
  readonly services: ReadonlySet<string> | undefined;
  /** Whose settings it wants. */
  readonly settings?: ReadonlySet<string> | undefined;
  /** Who opened it. */
  readonly caller?: Caller;
  /** It is an agent's: who waits is answered by its acks. */
  readonly acks?: boolean;
  /** Called once when the stream is over, whoever ended it. */
  readonly onEnd?: (end: StreamEnd) => void;
};

export type WatchHubOptions = {
  readonly registry: Registry;
  readonly clock: Clock;
  readonly logger: Logger;
  /** How many agents the realm has, for heartbeats. */
  readonly agents: () => number;
  /** Whether somebody waits for a change in (since, revision]. */
  readonly wantsAck: (since: number, revision: number) => boolean;
  /** Called for every stream that ended. */
  readonly onEnd?: (end: StreamEnd) => void;
  readonly log?: DeltaLogOptions;
};

/** Watchers that want the same services. */
type Group = {
  readonly key: string;
  readonly services: ReadonlySet<string> | undefined;
  readonly watchers: Set<Watcher>;
};

const encoder = new TextEncoder();
const NOTHING: ReadonlySet<string> = new Set();

export class WatchHub {
  readonly #registry: Registry;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #options: WatchHubOptions;
  readonly #log: DeltaLog;
  readonly #groups = new Map<string, Group>();
  readonly #settings = new Map<string, Set<Watcher>>();
  /** What each open stream asked for. */
  readonly #requests = new Map<Watcher, WatchRequest>();
  readonly #settingsQueue: Serial = serial();
  readonly #flush: Coalesced;
  readonly #unsubscribe: () => void;
  #pending: Delta[] = [];
  /** What every watcher has been sent. */
  #position: Position;
  /** The newest revision that agents were asked to ack at once. */
  #askedFor = 0;
  /** The bytes of the snapshot at `#position`, by group. */
  #snapshots = new Map<string, Uint8Array>();
  #heartbeat: Cancel | undefined;
  #stopped = false;

  constructor(options: WatchHubOptions) {
    this.#registry = options.registry;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#options = options;
    this.#log = new DeltaLog(options.log);
    this.#position = positionOf(this.#registry.state());
    this.#flush = coalesce(this.#clock, COALESCE_MS, () => this.#send());
    this.#unsubscribe = this.#registry.on((event) => {
      if (event.kind === "delta") {
        this.#pending.push(event.delta);
        this.#flush.request();
      } else if (event.kind === "reset") this.#reset();
      else this.#settingsChanged(event.service);
    });
    this.#beat();
  }

  /** How many streams are open. */
  get size(): number {
    return this.#requests.size;
  }

  /**
   * Opens a stream. Its first bytes are in it at once: Bun sends no headers before.
   * @throws ProblemFault `unavailable` when the hub is stopped
   */
  open(request: WatchRequest): Watcher {
    if (this.#stopped) throw new ProblemFault("unavailable", "Atlas is stopping");
    // the newcomer starts at the registry's position, so everybody must be there
    this.#send();
    const key = keyOf(request);
    const group = this.#groups.get(key) ?? { key, services: request.services, watchers: new Set<Watcher>() };
    this.#groups.set(key, group);
    const first = this.#firstEvent(request.since, group);
    const watcher = new Watcher({ clock: this.#clock, first, onEnd: this.#onEnd });
    group.watchers.add(watcher);
    this.#requests.set(watcher, request);
    for (const service of request.settings ?? NOTHING) {
      const watchers = this.#settings.get(service) ?? new Set<Watcher>();
      this.#settings.set(service, watchers.add(watcher));
      this.#sendSettings(service, () => [watcher]);
    }
    return watcher;
  }

  /** Which services and instances a revision touched, by name and id; undefined when that is no longer known. */
  touchedBy(revision: number): ReadonlySet<string> | undefined {
    return this.#log.touchedBy(revision);
  }

  /**
   * Somebody waits elsewhere for a position. When its change left before that was known here, agents are asked by a delta that
   * changes nothing.
   */
  askForAcks({ generation, revision }: Position): void {
    const here = this.#position;
    if (generation !== here.generation || revision > here.revision || revision <= this.#askedFor) return;
    this.#askedFor = here.revision;
    const nothing = { services: { put: {}, delete: [] }, instances: { put: [], delete: [] } };
    const bytes = encode("delta", { ...here, since: here.revision, ack: true, ...nothing }, formatPosition(here));
    for (const [watcher, { acks }] of this.#requests) if (acks === true) watcher.send(bytes);
  }

  /** Ends the streams of some callers. */
  endWhere(lost: (caller: Caller) => boolean, reason: string): void {
    for (const [watcher, { caller }] of this.#requests) if (caller !== undefined && lost(caller)) watcher.end(reason);
  }

  /** Ends every stream. */
  stop(reason: string): void {
    this.#stopped = true;
    this.#unsubscribe();
    this.#flush.stop();
    this.#heartbeat?.();
    for (const { watchers } of this.#groups.values()) for (const watcher of watchers) watcher.end(reason);
  }

  #firstEvent(since: Position | undefined, group: Group): Uint8Array {
    const missed = since === undefined ? { kind: "snapshot" as const } : this.#log.missedSince(since, this.#position);
    switch (missed.kind) {
      case "nothing":
        return this.#heartbeatBytes();
      case "delta":
        return this.#deltaBytes(missed.delta, group);
      case "snapshot":
        return this.#snapshotBytes(group);
    }
  }

  #snapshotBytes(group: Group): Uint8Array {
    const known = this.#snapshots.get(group.key);
    if (known !== undefined) return known;
    const snapshot = filterSnapshot(this.#registry.snapshot(), group.services);
    const bytes = encode("snapshot", snapshot, formatPosition(snapshot));
    this.#snapshots.set(group.key, bytes);
    return bytes;
  }

  #deltaBytes(delta: Delta, group: Group): Uint8Array {
    return encode("delta", filterDelta(delta, group.services), formatPosition(delta));
  }

  #heartbeatBytes(): Uint8Array {
    return encode("heartbeat", { ...this.#position, agents: this.#options.agents() });
  }

  /** Sends what is pending to everybody. */
  #send(): void {
    const [first, ...more] = this.#pending;
    if (first === undefined) return;
    this.#pending = [];
    const merged = mergeDeltas(first, ...more);
    this.#log.add(merged);
    this.#moveTo(positionOf(merged));
    const isAsked = this.#options.wantsAck(merged.since, merged.revision);
    if (isAsked) this.#askedFor = merged.revision;
    const delta = isAsked ? { ...merged, ack: true } : merged;
    // most filtered watchers are not concerned, and get the same few bytes
    let revisionOnly: Uint8Array | undefined;
    for (const group of this.#groups.values()) {
      const filtered = filterDelta(delta, group.services);
      const id = formatPosition(filtered);
      let bytes: Uint8Array;
      if (group.services !== undefined && isEmptyDelta(filtered)) {
        revisionOnly ??= encode("delta", filtered, id);
        bytes = revisionOnly;
      } else bytes = encode("delta", filtered, id);
      for (const watcher of group.watchers) watcher.send(bytes);
    }
  }

  /** A new generation: everybody begins again. */
  #reset(): void {
    this.#pending = [];
    this.#log.clear();
    this.#askedFor = 0;
    this.#moveTo(positionOf(this.#registry.state()));
    for (const group of this.#groups.values()) {
      const bytes = this.#snapshotBytes(group);
      for (const watcher of group.watchers) watcher.send(bytes);
    }
    // and so may their settings
    for (const service of this.#settings.keys()) this.#settingsChanged(service);
  }

  #moveTo(position: Position): void {
    this.#position = position;
    this.#snapshots.clear();
  }

  #beat(): void {
    this.#heartbeat = this.#clock.after(HEARTBEAT_MS, () => {
      const bytes = this.#heartbeatBytes();
      for (const { watchers } of this.#groups.values()) for (const watcher of watchers) watcher.send(bytes);
      this.#beat();
    });
  }

  #settingsChanged(service: string): void {
    if (this.#settings.has(service)) this.#sendSettings(service, () => this.#settings.get(service) ?? []);
  }

  // one queue, so that an older version never follows a newer one
  #sendSettings(service: string, to: () => Iterable<Watcher>): void {
    void this.#settingsQueue
      .run(async () => {
        const bytes = encode("settings", await this.#registry.settings(service));
        for (const watcher of to()) watcher.send(bytes);
      })
      .catch((error: unknown) => {
        this.#logger.error({ err: error, service }, "settings cannot be read; their watchers are cut off");
        for (const watcher of to()) watcher.end(`the settings of ${service} cannot be read: ${describeError(error)}`);
      });
  }

  // one for all: there are thousands of streams
  readonly #onEnd = (end: StreamEnd, watcher: Watcher): void => {
    const request = this.#requests.get(watcher);
    if (request === undefined) return;
    this.#requests.delete(watcher);
    const key = keyOf(request);
    const group = this.#groups.get(key);
    group?.watchers.delete(watcher);
    if (group?.watchers.size === 0) this.#groups.delete(key);
    for (const service of request.settings ?? NOTHING) {
      const watchers = this.#settings.get(service);
      watchers?.delete(watcher);
      if (watchers?.size === 0) this.#settings.delete(service);
    }
    request.onEnd?.(end);
    this.#options.onEnd?.(end);
  };
}

/** Of the group of a watcher. */
function keyOf({ services }: WatchRequest): string {
  return services === undefined ? "" : [...services].sort().join(",");
}

function positionOf({ generation, revision }: Position): Position {
  return { generation, revision };
}

function encode(event: string, data: unknown, id?: string): Uint8Array {
  return encoder.encode(formatSse({ event, data, ...(id === undefined ? {} : { id }) }));
}
