// One ZooKeeper session through node-zookeeper-client 1.1.3, typed, and mended where that would lose data or hang:
//  - a transaction's version 0 means "any version" to it: a check of a node nobody changed yet checked nothing;
//  - an error code it does not know (a quota, a moved session), or many replies in one packet, throw out of the socket's handler;
//  - half a reply is kept across a reconnect, and the next connection is read from the middle;
//  - what is asked without a connection waits for one, however long, and is sent when its caller has long given up;
//  - after a reconnect it sets all watches in one request, which the server refuses above 1 MB, for ever;
//  - a server that accepts and says nothing is waited for without end;
//  - it never tells that a session is over while it cannot connect (its #20).
import zookeeper, { type RawClient, type RawError, type RawTransaction } from "node-zookeeper-client";
import type { Cancel, Clock } from "../lib/clock.ts";
import { errorCode, Fault } from "../lib/errors.ts";
import {
  copyReplyZxid,
  childrenRequest,
  type ChildrenReply,
  type DataReply,
  dataRequest,
  longAt,
  ReadRequest,
  replyError,
  replyXid,
  type Zxid,
} from "./zookeeper-wire.ts";

export type { Zxid } from "./zookeeper-wire.ts";

/** A step of a transaction. Without `version` any version will do. */
export type Op =
  | { readonly kind: "create"; readonly path: string; readonly data: string; readonly ephemeral?: boolean }
  | { readonly kind: "set"; readonly path: string; readonly data: string; readonly version?: number }
  | { readonly kind: "remove" | "check"; readonly path: string; readonly version?: number };

/** What a watch tells: the one-shot watch of a node's data, of its children, or both are gone with the node. */
export type NodeEvent = { readonly kind: "data" | "children" | "deleted"; readonly path: string };

type ClientListener = {
  connected(): void;
  /** Every request that was not answered has failed with `connection_loss` by now. */
  disconnected(why: string): void;
  /** The session is over, and this client with it. */
  ended(why: string): void;
  event(event: NodeEvent): void;
};

export type ClientOptions = {
  /** `HOST:PORT,HOST:PORT`, no chroot. */
  readonly hosts: string;
  /** What every path begins with; empty for none. */
  readonly chroot: string;
  /** Wanted, in ms; the server bounds it. */
  readonly sessionTimeoutMs: number;
  /** Of the network: never a test's. */
  readonly timers: Clock;
  readonly listener: ClientListener;
};

const CONNECTION_LOSS = -4;
/** A longer reply is none of ZooKeeper's. */
const LONGEST_REPLY = 64 * 1_024 * 1_024;

const KINDS: Readonly<Record<number, NodeEvent["kind"]>> = { 1: "data", 2: "deleted", 3: "data", 4: "children" };
const CODES = new Map(
  Object.entries(zookeeper.Exception).flatMap(([name, code]) => (typeof code === "number" ? [[code, name]] : [])),
);

const createError = zookeeper.Exception.create;
zookeeper.Exception.create = (code, path) =>
  CODES.has(code)
    ? createError(code, path)
    : Object.assign(new Error(`ZooKeeper refused with code ${code}`), { code, name: `CODE_${-code}` });

export class ZooKeeperClient {
  readonly #raw: RawClient;
  readonly #options: ClientOptions;
  readonly #unanswered = new Set<(fault: Fault) => void>();
  #connected = false;
  #over = false;
  #trouble = "not connected yet";
  #heard = true;
  #quietTicks = 0;
  #socketAtTick: unknown;
  #tick: Cancel | undefined;
  #expiry: Cancel | undefined;

  constructor(options: ClientOptions) {
    const { hosts, sessionTimeoutMs } = options;
    this.#options = options;
    this.#raw = zookeeper.createClient(hosts, { sessionTimeout: sessionTimeoutMs, spinDelay: 300, retries: 0 });
    this.#raw.on("state", ({ name }) => this.#become(name));
    this.#mend();
  }

  connect(): void {
    this.#raw.connect();
    this.#watch();
  }

  /** The session's id, in hex; what it owns is gone when it ends. */
  get session(): string {
    return this.#raw.getSessionId().toString("hex");
  }

  /** As negotiated, in ms. */
  get sessionTimeoutMs(): number {
    return this.#raw.getSessionTimeout();
  }

  /** Why the last connection failed. */
  get trouble(): string {
    return this.#trouble;
  }

  /** Reads a node's data and sets its data watch. @throws Fault `no_node` (no watch is set then), `connection_loss` */
  getData(path: string): Promise<DataReply> {
    return this.#read(dataRequest(this.#full(path)));
  }

  /** Reads the names of a node's children and sets its child watch. @throws Fault as `getData` */
  getChildren(path: string): Promise<ChildrenReply> {
    return this.#read(childrenRequest(this.#full(path)));
  }

  /**
   * All or nothing.
   * @returns the transaction's place in the log
   * @throws Fault `bad_version`, `no_node`, `node_exists`, `not_empty`: nothing happened; `connection_loss`: nobody knows
   */
  commit(ops: readonly Op[]): Promise<Zxid> {
    return this.#commit((transaction) => {
      for (const op of ops) addStep(transaction, this.#full(op.path), op);
    });
  }

  /** Makes the chroot, and what it lies in, where they are missing. @throws Fault as `commit` */
  async makeChroot(): Promise<void> {
    const names = this.#options.chroot.split("/").slice(1);
    for (let depth = 1; depth <= names.length; depth += 1) {
      const path = `/${names.slice(0, depth).join("/")}`;
      try {
        await this.#commit((transaction) => transaction.create(path, Buffer.alloc(0), zookeeper.CreateMode.PERSISTENT));
      } catch (error) {
        if (errorCode(error) !== "node_exists") throw error;
      }
    }
  }

  /** Ends the session, so that what it owns is gone at once; a silent server gets a second. */
  async close(): Promise<void> {
    const { socket } = this.#raw.connectionManager;
    if (!this.#over && this.#connected && socket !== undefined) {
      this.#over = true;
      const { promise, resolve } = Promise.withResolvers<void>();
      const cancel = this.#options.timers.after(1_000, resolve);
      socket.once("close", () => resolve());
      this.#raw.close();
      await promise;
      cancel();
    }
    this.abandon();
  }

  /** Leaves the session to its timeout. */
  abandon(): void {
    this.#over = true;
    this.#tick?.();
    this.#expiry?.();
    this.#lose("the client was closed");
    const connection = this.#raw.connectionManager;
    // it may be about to connect: that connection ends before it says anything
    connection.onSocketClosed = () => undefined;
    connection.onSocketConnected = () => {
      clearTimeout(connection.connectTimeoutHandler);
      connection.socket?.destroy();
    };
    clearTimeout(connection.connectTimeoutHandler);
    connection.socket?.destroy();
  }

  #full(path: string): string {
    return path === "/" ? this.#options.chroot || "/" : this.#options.chroot + path;
  }

  #commit(fill: (transaction: RawTransaction) => void): Promise<Zxid> {
    return this.#ask((resolve, reject) => {
      const transaction = this.#raw.transaction();
      fill(transaction);
      transaction.commit((error) => {
        if (error) reject(error);
        // the connection keeps the zxid of the reply that it hands on
        else resolve(longAt(this.#raw.connectionManager.zxid, 0));
      });
    });
  }

  #read<T>(request: ReadRequest<T>): Promise<T> {
    return this.#ask((resolve, reject) => {
      this.#raw.connectionManager.queue(request, (error, reply) => {
        if (reply === undefined) reject(error ?? zookeeper.Exception.create(CONNECTION_LOSS));
        else resolve(request.read(reply.bytes, reply.at));
      });
    });
  }

  /** One request: answered, or failed when the connection is, whatever becomes of the client's own callback. */
  #ask<T>(send: (resolve: (value: T) => void, reject: (error: RawError) => void) => void): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (!this.#connected) {
        reject(lost(this.#trouble));
        return;
      }
      this.#unanswered.add(reject);
      send(
        (value) => {
          this.#unanswered.delete(reject);
          resolve(value);
        },
        (error) => {
          this.#unanswered.delete(reject);
          reject(faultOf(error));
        },
      );
    });
  }

  #mend(): void {
    const connection = this.#raw.connectionManager;
    connection.watcherManager = {
      registerDataWatcher: () => undefined,
      registerChildWatcher: () => undefined,
      registerExistenceWatcher: () => undefined,
      isEmpty: () => true,
      emit: ({ type, path }) => {
        const kind = KINDS[type];
        if (kind !== undefined && !this.#over)
          this.#options.listener.event({ kind, path: path.slice(this.#options.chroot.length) });
      },
    };
    const readReply = connection.onSocketData.bind(connection);
    let socket: unknown;
    let rest: Buffer | undefined;
    connection.onSocketData = (chunk) => {
      this.#heard = true;
      if (connection.socket !== socket) rest = undefined;
      socket = connection.socket;
      const bytes = rest === undefined ? chunk : Buffer.concat([rest, chunk]);
      let at = 0;
      while (bytes.length - at >= 4) {
        const end = at + 4 + bytes.readUInt32BE(at);
        if (end - at > LONGEST_REPLY) {
          this.#cut("what answers is not ZooKeeper");
          return;
        }
        if (bytes.length < end) break;
        connection.pendingBuffer = null;
        try {
          if (!this.#takeRead(bytes, at)) readReply(bytes.subarray(at, end));
        } catch (error) {
          this.#cut(`a reply could not be read: ${String(error)}`);
          return;
        }
        at = end;
      }
      rest = at === bytes.length ? undefined : bytes.subarray(at);
    };
    const onError = connection.onSocketError.bind(connection);
    connection.onSocketError = (error) => {
      this.#trouble = error.message;
      onError(error);
    };
  }

  /** Answers a read of ours, if that is what came. */
  #takeRead(bytes: Buffer, at: number): boolean {
    const connection = this.#raw.connectionManager;
    const [packet] = connection.pendingQueue;
    if (!(packet?.request instanceof ReadRequest) || packet.request.header.xid !== replyXid(bytes, at)) return false;
    connection.pendingQueue.shift();
    // what it tells the next server that it has seen
    copyReplyZxid(bytes, at, connection.zxid);
    const code = replyError(bytes, at);
    if (code === 0) packet.callback(undefined, { bytes, at });
    else packet.callback(zookeeper.Exception.create(code));
    return true;
  }

  #become(state: string): void {
    if (this.#over) return;
    const { listener, timers } = this.#options;
    switch (state) {
      case "SYNC_CONNECTED":
        this.#expiry?.();
        this.#connected = true;
        this.#trouble = "the connection broke";
        listener.connected();
        return;
      case "DISCONNECTED":
        if (!this.#connected) return;
        this.#lose(this.#trouble);
        // the servers forget the session by themselves, and nobody would tell us; a third more for clocks and slow leaders
        this.#expiry = timers.after((this.sessionTimeoutMs * 4) / 3, () => this.#end("no server was reached in time"));
        listener.disconnected(this.#trouble);
        return;
      case "EXPIRED":
        this.#end("the servers ended it");
        return;
      case "AUTH_FAILED":
        this.#end("the servers refused who we are");
        return;
      default:
        // CONNECTED_READ_ONLY comes only to those who ask for it, and this client never does
        this.#cut(`the server is in the state ${state}`);
    }
  }

  #end(why: string): void {
    this.abandon();
    this.#options.listener.ended(why);
  }

  #lose(why: string): void {
    this.#connected = false;
    const fault = lost(why);
    for (const reject of this.#unanswered) reject(fault);
    this.#unanswered.clear();
  }

  #cut(why: string): void {
    this.#trouble = why;
    this.#raw.connectionManager.socket?.destroy();
  }

  /** Silence is counted in ticks, not in time: a process that stood still finds its input unread, not a silent server. */
  #watch(): void {
    this.#tick = this.#options.timers.after(this.sessionTimeoutMs / 6, () => {
      const { socket } = this.#raw.connectionManager;
      const quiet = !this.#heard && socket === this.#socketAtTick;
      this.#quietTicks = quiet ? this.#quietTicks + 1 : 0;
      this.#socketAtTick = socket;
      this.#heard = false;
      // connected, the client pings after a third of the timeout
      if (this.#quietTicks >= (this.#connected ? 4 : 2)) {
        this.#quietTicks = 0;
        this.#cut("the server is silent");
      }
      this.#watch();
    });
  }
}

function addStep(transaction: RawTransaction, path: string, op: Op): void {
  if (op.kind === "create") {
    const { PERSISTENT, EPHEMERAL } = zookeeper.CreateMode;
    transaction.create(path, Buffer.from(op.data), op.ephemeral === true ? EPHEMERAL : PERSISTENT);
    return;
  }
  const version = op.version ?? -1;
  if (op.kind === "set") transaction.setData(path, Buffer.from(op.data), version);
  else transaction[op.kind](path, version);
  const step = transaction.ops.at(-1);
  if (step !== undefined) step.version = version;
}

function lost(why: string): Fault {
  return new Fault({ code: "connection_loss", message: `ZooKeeper did not answer: ${why}` });
}

/** The client's error as a Fault: `NO_NODE` is `no_node`. */
function faultOf(error: RawError): Fault {
  const name = CODES.get(error.code) ?? error.name;
  return new Fault({ code: name.toLowerCase(), message: `ZooKeeper refused: ${name}` });
}
