// ZooKeeper in memory, for tests of what follows its rules: one-shot watches, news before the answers that follow it, and a
// wire that delivers in order but as late as the test likes.
import { Fault } from "../lib/errors.ts";
import type { NodeEvent, Op } from "./zookeeper-client.ts";
import type { Reads } from "./zookeeper-tree.ts";
import type { Stat, Zxid } from "./zookeeper-wire.ts";

type Znode = { data: string; version: number; mzxid: Zxid; pzxid: Zxid; mtime: number };

const parentOf = (path: string): string => path.slice(0, path.lastIndexOf("/"));
const refuse = (code: string): Fault => new Fault({ code, message: code });

export class FakeZooKeeper {
  #zxid = 0;
  #nodes = new Map<string, Znode>([["", { data: "", version: 0, mzxid: 0, pzxid: 0, mtime: 0 }]]);

  get zxid(): Zxid {
    return this.#zxid;
  }

  get paths(): readonly string[] {
    return [...this.#nodes.keys()].filter((path) => path !== "").sort();
  }

  get(path: string): Znode | undefined {
    return this.#nodes.get(path);
  }

  children(path: string): readonly string[] {
    return this.paths.filter((other) => parentOf(other) === path).map((other) => other.slice(path.length + 1));
  }

  readonly #wires = new Set<Wire>();

  connect(heard: (event: NodeEvent) => void): Wire {
    const wire = new Wire(this, heard);
    this.#wires.add(wire);
    return wire;
  }

  /** All or nothing. @throws Fault as ZooKeeper refuses */
  commit(ops: readonly Op[]): Zxid {
    const before = structuredClone(this.#nodes);
    this.#zxid += 1;
    const events: NodeEvent[] = [];
    try {
      for (const op of ops) this.#step(op, events);
    } catch (error) {
      this.#nodes = before;
      throw error;
    }
    for (const event of events) for (const wire of this.#wires) wire.news(event);
    return this.#zxid;
  }

  #step(op: Op, events: NodeEvent[]): void {
    const { path } = op;
    const parent = this.#nodes.get(parentOf(path));
    const node = this.#nodes.get(path);
    if (op.kind === "create") {
      if (node !== undefined) throw refuse("node_exists");
      if (parent === undefined) throw refuse("no_node");
      this.#nodes.set(path, { data: op.data, version: 0, mzxid: this.#zxid, pzxid: this.#zxid, mtime: 0 });
      parent.pzxid = this.#zxid;
      events.push({ kind: "children", path: parentOf(path) });
      return;
    }
    if (node === undefined) throw refuse("no_node");
    if (op.version !== undefined && op.version !== node.version) throw refuse("bad_version");
    if (op.kind === "set") {
      Object.assign(node, { data: op.data, version: node.version + 1, mzxid: this.#zxid });
      events.push({ kind: "data", path });
    } else if (op.kind === "remove") {
      if (this.children(path).length > 0) throw refuse("not_empty");
      this.#nodes.delete(path);
      if (parent !== undefined) parent.pzxid = this.#zxid;
      events.push({ kind: "deleted", path }, { kind: "children", path: parentOf(path) });
    }
  }
}

/** One client's connection. */
export class Wire implements Reads {
  readonly #server: FakeZooKeeper;
  readonly #heard: (event: NodeEvent) => void;
  readonly #watches = { data: new Set<string>(), children: new Set<string>() };
  /** Asked, and not looked at yet. */
  readonly #asked: (() => void)[] = [];
  /** On the way back. */
  readonly #arriving: { readonly zxid: Zxid; readonly deliver: () => void }[] = [];
  /** As of when the client knows everything. */
  known: Zxid = 0;

  constructor(server: FakeZooKeeper, heard: (event: NodeEvent) => void) {
    this.#server = server;
    this.#heard = heard;
  }

  get busy(): boolean {
    return this.#asked.length + this.#arriving.length > 0;
  }

  news(event: NodeEvent): void {
    const { data, children } = this.#watches;
    const { kind, path } = event;
    const fired = kind === "deleted" ? [data.delete(path), children.delete(path)] : [this.#watches[kind].delete(path)];
    if (fired.includes(true)) this.#arrive(() => this.#heard(event));
  }

  /** The server looks at the next request. */
  look(): void {
    this.#asked.shift()?.();
  }

  /** The next message reaches the client. */
  async receive(): Promise<void> {
    const message = this.#arriving.shift();
    if (message === undefined) return;
    this.known = message.zxid;
    message.deliver();
    await new Promise((resolve) => setImmediate(resolve));
  }

  /** The last message comes before all others, as it never should. */
  overtake(): void {
    const last = this.#arriving.pop();
    if (last !== undefined) this.#arriving.unshift(last);
  }

  getData = (path: string) => this.#ask("data", path, (node) => ({ data: node.data, stat: statOf(node) }));
  getChildren = (path: string) =>
    this.#ask("children", path, (node) => ({ children: this.#server.children(path), stat: statOf(node) }));

  #ask<T>(part: "data" | "children", path: string, read: (node: Znode) => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#asked.push(() => {
        const node = this.#server.get(path);
        if (node === undefined) {
          this.#arrive(() => reject(refuse("no_node")));
          return;
        }
        this.#watches[part].add(path);
        const reply = read(node);
        this.#arrive(() => resolve(reply));
      });
    });
  }

  #arrive(deliver: () => void): void {
    this.#arriving.push({ zxid: this.#server.zxid, deliver });
  }
}

function statOf({ version, mzxid, pzxid, mtime }: Znode): Stat {
  return { version, mzxid, pzxid, mtime, owner: "" };
}
