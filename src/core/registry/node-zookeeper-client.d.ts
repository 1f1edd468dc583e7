// node-zookeeper-client 1.1.3 brings no types. These are what zookeeper-client.ts uses of it, its insides included.
declare module "node-zookeeper-client" {
  import type { Socket } from "node:net";

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

  export type RawRequest = { readonly header: { readonly type: number; xid: number }; toBuffer(): Buffer };
  export type RawPacket = {
    readonly request: RawRequest;
    readonly callback: (error: RawError | undefined, reply?: { readonly bytes: Buffer; readonly at: number }) => void;
  };

  export type RawConnection = {
    watcherManager: RawWatchers;
    /** Sent, and not answered yet. */
    readonly pendingQueue: RawPacket[];
    pendingBuffer: Buffer | null;
    readonly socket: Socket | undefined;
    readonly connectTimeoutHandler: NodeJS.Timeout | undefined;
    /** Of the last reply that had one: eight bytes, big endian. */
    readonly zxid: Buffer;
    queue(request: RawRequest, callback: RawPacket["callback"]): void;
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
