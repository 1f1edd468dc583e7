// node-zookeeper-client 1.1.3 brings no types. These are what zookeeper-client.ts uses of it, its insides included.
declare module "node-zookeeper-client" {
  import type { Socket } from "node:net";

  /** 64-bit numbers are eight bytes, big endian. */
  export type RawStat = {
    readonly mzxid: Buffer;
    readonly pzxid: Buffer;
    readonly mtime: Buffer;
    readonly version: number;
    readonly ephemeralOwner: Buffer;
  };
  export type RawError = Error & { readonly code: number };
  type Done<T extends readonly unknown[]> = (error: RawError | null | undefined, ...results: T) => void;

  export type RawTransaction = {
    readonly ops: { version?: number }[];
    create(path: string, data: Buffer, mode: number): RawTransaction;
    setData(path: string, data: Buffer, version: number): RawTransaction;
    remove(path: string, version: number): RawTransaction;
    check(path: string, version: number): RawTransaction;
    commit(done: Done<[readonly unknown[]]>): void;
  };

  export type RawWatchers = {
    registerDataWatcher(): void;
    registerChildWatcher(): void;
    registerExistenceWatcher(): void;
    isEmpty(): boolean;
    emit(event: { readonly type: number; readonly path: string }): void;
  };

  export type RawConnection = {
    watcherManager: RawWatchers;
    readonly packetQueue: { readonly queue: unknown[] };
    pendingBuffer: Buffer | null;
    readonly socket: Socket | undefined;
    readonly connectTimeoutHandler: NodeJS.Timeout | undefined;
    /** Of the last reply that had one. */
    readonly zxid: Buffer;
    onSocketData(chunk: Buffer): void;
    onSocketConnected(): void;
    onSocketError(error: Error): void;
    onSocketClosed(hasError: boolean): void;
  };

  export type RawClient = {
    readonly connectionManager: RawConnection;
    connect(): void;
    close(): void;
    getSessionId(): Buffer;
    getSessionTimeout(): number;
    getData(path: string, watcher: () => void, done: Done<[Buffer | undefined, RawStat]>): void;
    getChildren(path: string, watcher: () => void, done: Done<[readonly string[], RawStat]>): void;
    transaction(): RawTransaction;
    on(event: "state", listener: (state: { readonly name: string }) => void): void;
  };

  const zookeeper: {
    createClient(servers: string, options: { sessionTimeout: number; spinDelay: number; retries: 0 }): RawClient;
    readonly CreateMode: { readonly PERSISTENT: 0; readonly EPHEMERAL: 1 };
    readonly Exception: { create: (code: number, path?: string) => RawError; readonly [name: string]: unknown };
  };
  export default zookeeper;
}
