// Who is there: the leases of agents and the replicas, ephemeral nodes of whoever holds them. What this replica holds is
// remembered here and put back whenever ZooKeeper lost it: a new session begins with nothing.
import { Fault } from "../lib/errors.ts";
import type { Logger } from "../lib/logger.ts";
import type { HeldLease, Lease, LeaseView, ReplicaView } from "./live-store.ts";
import type { NodeEvent, Op, Zxid, ZooKeeperClient } from "./zookeeper-client.ts";
import {
  agentPath,
  atlasPath,
  PRESENCE_ROOTS,
  type Reading,
  readLease,
  readReplicaUrl,
  writeLease,
} from "./zookeeper-nodes.ts";
import { tellDifference } from "./zookeeper-registry.ts";
import { type TreeNode, ZooKeeperTree } from "./zookeeper-tree.ts";
import { isLoss, Milestones, Slots, tryCommit } from "./zookeeper-waits.ts";

/** Another replica that claims the same lease at the same time wins or loses within a few rounds. */
const ROUNDS = 20;

export type PresenceOptions = {
  readonly replica: string;
  readonly logger: Logger;
  readonly onMissing: (path: string) => void;
  readonly onLeases: (leases: LeaseView) => void;
  readonly onReplicas: (replicas: ReplicaView) => void;
};

export class Presence {
  readonly #options: PresenceOptions;
  readonly #tree: ZooKeeperTree;
  readonly #shown = new Milestones();
  readonly #slots = new Slots();
  /** What this replica holds, or will as soon as ZooKeeper can be written. */
  readonly #own = new Map<string, Lease>();
  /** Hosts whose lease was seen to be this replica's. */
  readonly #seenOwn = new Set<string>();
  readonly #touchedHosts = new Set<string>();
  readonly #read = new Map<string, HeldLease>();
  readonly #garbled = new Map<string, string>();
  #touchedReplicas = false;
  #client: ZooKeeperClient | undefined;
  #url: string | undefined;
  #leases: LeaseView = new Map();
  #replicas: ReplicaView = new Map();
  #problems: ReadonlyMap<string, string> = new Map();
  #scheduled = false;
  /** What this replica holds was put back since the connection began. */
  #isHome = false;

  constructor(options: PresenceOptions) {
    this.#options = options;
    this.#tree = new ZooKeeperTree({
      roots: PRESENCE_ROOTS,
      onTouched: ({ parent, name }) => {
        if (parent?.name === "agents") this.#touchedHosts.add(name);
        else this.#touchedReplicas = true;
      },
      onSettled: () => this.#schedule(),
      onMissing: options.onMissing,
    });
  }

  get leases(): LeaseView {
    return this.#leases;
  }

  /** The highest zxid that was seen. */
  get highest(): Zxid {
    return this.#tree.highest;
  }

  /** What is ignored and why, by path. */
  get problems(): ReadonlyMap<string, string> {
    return this.#problems;
  }

  get replicas(): ReplicaView {
    return this.#replicas;
  }

  begin(client: ZooKeeperClient): void {
    this.#client = client;
    this.#shown.leave();
    this.#tree.begin(client);
  }

  end(): void {
    this.#client = undefined;
    this.#isHome = false;
    this.#shown.lose();
    this.#tree.end();
  }

  retry(): void {
    this.#tree.retry();
  }

  heard(event: NodeEvent): void {
    this.#tree.heard(event);
  }

  /** Resolves when everything that was told by now is shown. */
  async current(): Promise<void> {
    if (!this.#tree.settled || this.#scheduled) this.#shown.leave();
    await this.#shown.at(0);
  }

  /**
   * Takes the lease of a host, from another replica if need be. While ZooKeeper is away the lease is remembered: its agent is
   * served here, and the other replicas learn of it afterwards.
   */
  async claim(lease: Lease): Promise<void> {
    const { host } = lease;
    this.#own.set(host, lease);
    if (this.#client === undefined) this.#showLeases();
    try {
      await this.#place(agentPath(host), () => this.#leaseText(host), true);
    } catch (error) {
      if (this.#own.get(host) === lease) this.#own.delete(host);
      throw error;
    }
  }

  /** Gives a lease up; another replica's stays. */
  async release(host: string): Promise<void> {
    this.#own.delete(host);
    this.#seenOwn.delete(host);
    if (this.#client === undefined) this.#showLeases();
    await this.#place(agentPath(host), () => this.#leaseText(host), false);
  }

  async announce(url: string): Promise<void> {
    this.#url = url;
    await this.#place(atlasPath(this.#options.replica), () => this.#url, true);
  }

  /** Puts back what ZooKeeper lost with an old session, and takes away what was given up meanwhile. */
  async putBack(): Promise<void> {
    const session = this.#client?.session;
    await this.#place(atlasPath(this.#options.replica), () => this.#url, false);
    const stale = [...(this.#tree.find("/agents")?.children?.values() ?? [])].filter(({ owner }) => owner === session);
    const hosts = [...new Set([...this.#own.keys(), ...stale.map(({ name }) => name)])];
    await Promise.all(hosts.map((host) => this.#place(agentPath(host), () => this.#leaseText(host), false)));
    this.#isHome = this.#client !== undefined;
  }

  #leaseText(host: string): string | undefined {
    const lease = this.#own.get(host);
    return lease === undefined ? undefined : writeLease({ ...lease, replica: this.#options.replica });
  }

  /**
   * Makes an ephemeral node of ours say `text()`, or not be there when it says undefined.
   * @param takeOver also when another replica has it
   */
  #place(path: string, text: () => string | undefined, takeOver: boolean): Promise<void> {
    return this.#slots.run(() => this.#placeNow(path, text, takeOver));
  }

  async #placeNow(path: string, text: () => string | undefined, takeOver: boolean): Promise<void> {
    try {
      for (let round = 0; round < ROUNDS; round += 1) {
        // it is put back when ZooKeeper is there again
        if (this.#client === undefined) return;
        await this.current();
        const client = this.#client;
        const ops = this.#steps(path, text(), client.session, takeOver);
        if (ops.length === 0) return;
        const zxid = await tryCommit(client, ops);
        if (zxid === "connection lost") return;
        if (zxid === "lost race") continue;
        await this.#shown.at(zxid);
        return;
      }
    } catch (error) {
      if (isLoss(error)) return;
      throw error;
    }
    throw new Fault({ code: "unavailable", message: `${path} is contended: other replicas want it, too` });
  }

  #steps(path: string, text: string | undefined, session: string, takeOver: boolean): readonly Op[] {
    const node = this.#tree.find(path);
    if (node === undefined) return text === undefined ? [] : [{ kind: "create", path, data: text, ephemeral: true }];
    const { version, owner } = node;
    if (owner === session) {
      if (text === undefined) return [{ kind: "remove", path, version }];
      return node.data === text ? [] : [{ kind: "set", path, data: text, version }];
    }
    // what another replica holds is its own, but what an old session of ours left is ours, and so is what names no replica
    if (text === undefined || (!takeOver && !this.#isOurs(node))) return [];
    return [
      { kind: "remove", path, version },
      { kind: "create", path, data: text, ephemeral: true },
      // no two holders in a row have the same version, so that the first cannot remove what is the second's
      ...(version === 0 ? [{ kind: "set" as const, path, data: text }] : []),
    ];
  }

  #isOurs({ parent, name }: TreeNode): boolean {
    const holder = this.#read.get(name)?.replica;
    return parent?.name === "atlases" || holder === undefined || holder === this.#options.replica;
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      if (this.#tree.settled) this.#publish();
    });
  }

  #publish(): void {
    const hosts = [...this.#touchedHosts];
    this.#touchedHosts.clear();
    for (const host of hosts) this.#look(host);
    if (hosts.length > 0) this.#showLeases();
    if (this.#touchedReplicas) this.#showReplicas();
    this.#touchedReplicas = false;
    const problems = new Map([...this.#tree.problems, ...this.#garbled]);
    tellDifference(this.#options.logger, this.#problems, problems);
    this.#problems = problems;
    this.#shown.reach(this.#tree.highest);
  }

  /** What became of a lease. */
  #look(host: string): void {
    const path = agentPath(host);
    const text = this.#tree.find(path)?.data;
    const reading = text === undefined ? undefined : readLease(host, text);
    this.#garble(path, reading);
    if (reading?.ok === true) this.#read.set(host, reading.value);
    else this.#read.delete(host);
    const holder = this.#read.get(host)?.replica;
    if (holder === this.#options.replica) this.#seenOwn.add(host);
    else {
      const wasOwn = this.#seenOwn.delete(host);
      if (holder !== undefined) {
        // another replica took it over
        if (wasOwn) this.#own.delete(host);
      } else if (this.#own.has(host) && this.#isHome) {
        // somebody deleted or garbled it, or the replica that its agent came from while ZooKeeper was away gave it up
        this.#putBackLease(host);
      }
    }
  }

  #putBackLease(host: string): void {
    void this.#place(agentPath(host), () => this.#leaseText(host), false).catch((error: unknown) => {
      this.#options.logger.error({ err: error, host }, "a lease that vanished cannot be put back");
    });
  }

  /** What ZooKeeper says, except what this replica knows better. */
  #showLeases(): void {
    const leases = new Map(this.#read);
    const { replica } = this.#options;
    for (const [host, lease] of this.#read) {
      if (lease.replica === replica && !this.#own.has(host)) leases.delete(host);
    }
    for (const [host, lease] of this.#own) if (!leases.has(host)) leases.set(host, { ...lease, replica });
    this.#leases = leases;
    this.#options.onLeases(leases);
  }

  #showReplicas(): void {
    const replicas = new Map<string, string>();
    for (const path of this.#garbled.keys()) if (path.startsWith("/atlases/")) this.#garbled.delete(path);
    for (const { name, path, data } of this.#tree.find("/atlases")?.children?.values() ?? []) {
      const reading = readReplicaUrl(data ?? "");
      this.#garble(path, reading);
      if (reading.ok) replicas.set(name, reading.value);
    }
    this.#replicas = replicas;
    this.#options.onReplicas(replicas);
  }

  #garble(path: string, reading: Reading<unknown> | undefined): void {
    if (reading === undefined || reading.ok) this.#garbled.delete(path);
    else this.#garbled.set(path, `${reading.problem}; it is ignored`);
  }
}
