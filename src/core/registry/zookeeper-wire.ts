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
  /** @param at where the reply begins in `bytes` */
  readonly read: (bytes: Buffer, at: number) => T;
  readonly #path: string;

  constructor(type: number, path: string, read: (bytes: Buffer, at: number) => T) {
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
  return new ReadRequest(GET_DATA, path, (bytes, at) => {
    // a node without data says -1
    const length = Math.max(0, bytes.readInt32BE(at + REPLY_HEADER));
    const start = at + REPLY_HEADER + 4;
    return { data: textAt(bytes, start, start + length), stat: statAt(bytes, start + length) };
  });
}

/** Reads the names of a node's children and sets its child watch. */
export function childrenRequest(path: string): ReadRequest<ChildrenReply> {
  return new ReadRequest(GET_CHILDREN, path, (bytes, at) => {
    const children: string[] = [];
    let next = at + REPLY_HEADER + 4;
    for (let left = bytes.readInt32BE(at + REPLY_HEADER); left > 0; left -= 1) {
      const end = next + 4 + bytes.readInt32BE(next);
      children.push(textAt(bytes, next + 4, end));
      next = end;
    }
    return { children, stat: statAt(bytes, next) };
  });
}

export const replyXid = (bytes: Buffer, at: number): number => bytes.readInt32BE(at + 4);
export const replyError = (bytes: Buffer, at: number): number => bytes.readInt32BE(at + 16);
/** Copies the place in the log that a reply names. */
export const copyReplyZxid = (bytes: Buffer, at: number, to: Buffer): void => void bytes.copy(to, 0, at + 8, at + 16);

/** Ten thousand times `enabled`, `True` and `5000` are kept once. */
const POOL = new Map<string, string>();
const POOL_SIZE = 1_000;
const POOLED_LENGTH = 8;

function textAt(bytes: Buffer, start: number, end: number): string {
  const text = bytes.toString("utf8", start, end);
  if (end - start > POOLED_LENGTH) return text;
  const pooled = POOL.get(text);
  if (pooled !== undefined) return pooled;
  if (POOL.size < POOL_SIZE) POOL.set(text, text);
  return text;
}

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
