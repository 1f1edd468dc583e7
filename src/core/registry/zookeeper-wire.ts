// Reads, spoken to ZooKeeper directly: the client's generic records cost 25 objects a reply, and a start with 10,000 instances
// is 40,000 reads. Formats: zookeeper.jute of ZooKeeper 3.8.

/** Position in ZooKeeper's log. Safe as a number up to the two millionth leader. */
export type Zxid = number;

export type Stat = {
  readonly version: number;
  /** Of the last change of the data. */
  readonly mzxid: Zxid;
  /** Of the last child that came or went. */
  readonly pzxid: Zxid;
  /** Of the last change of the data, in ms since the epoch, by the leader's clock. */
  readonly mtime: number;
  /** The session that an ephemeral node ends with; empty for others. */
  readonly owner: string;
};

export type DataReply = { readonly data: string; readonly stat: Stat };
export type ChildrenReply = { readonly children: readonly string[]; readonly stat: Stat };

const GET_DATA = 4;
const GET_CHILDREN = 12;
/** Length, xid, zxid, error. */
const REPLY_HEADER = 20;

/** A request as the client's queue takes it; the client numbers it. */
export class ReadRequest<T> {
  readonly header: { readonly type: number; xid: number };
  readonly payload = undefined;
  readonly read: (reply: Buffer) => T;
  readonly #path: string;

  constructor(type: number, path: string, read: (reply: Buffer) => T) {
    this.header = { type, xid: 0 };
    this.#path = path;
    this.read = read;
  }

  /** Length, xid, type, path, watch. */
  toBuffer(): Buffer {
    const length = Buffer.byteLength(this.#path);
    const bytes = Buffer.allocUnsafe(17 + length);
    bytes.writeInt32BE(13 + length, 0);
    bytes.writeInt32BE(this.header.xid, 4);
    bytes.writeInt32BE(this.header.type, 8);
    bytes.writeInt32BE(length, 12);
    bytes.write(this.#path, 16);
    bytes.writeUInt8(1, 16 + length);
    return bytes;
  }
}

/** Reads a node's data and sets its data watch. */
export function dataRequest(path: string): ReadRequest<DataReply> {
  return new ReadRequest(GET_DATA, path, (reply) => {
    // a node without data says -1
    const length = Math.max(0, reply.readInt32BE(REPLY_HEADER));
    const start = REPLY_HEADER + 4;
    return { data: reply.toString("utf8", start, start + length), stat: statAt(reply, start + length) };
  });
}

/** Reads the names of a node's children and sets its child watch. */
export function childrenRequest(path: string): ReadRequest<ChildrenReply> {
  return new ReadRequest(GET_CHILDREN, path, (reply) => {
    const children: string[] = [];
    let at = REPLY_HEADER + 4;
    for (let left = reply.readInt32BE(REPLY_HEADER); left > 0; left -= 1) {
      const end = at + 4 + reply.readInt32BE(at);
      children.push(reply.toString("utf8", at + 4, end));
      at = end;
    }
    return { children, stat: statAt(reply, at) };
  });
}

export const replyXid = (reply: Buffer): number => reply.readInt32BE(4);
export const replyZxid = (reply: Buffer): Buffer => reply.subarray(8, 16);
export const replyError = (reply: Buffer): number => reply.readInt32BE(16);

/** Created, modified, ctime, mtime, version, cversion, aversion, owner, data length, number of children, pzxid. */
function statAt(bytes: Buffer, at: number): Stat {
  return {
    mzxid: longAt(bytes, at + 8),
    mtime: longAt(bytes, at + 24),
    version: bytes.readInt32BE(at + 32),
    owner: longAt(bytes, at + 44) === 0 ? "" : bytes.toString("hex", at + 44, at + 52),
    pzxid: longAt(bytes, at + 60),
  };
}

export function longAt(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4);
}
