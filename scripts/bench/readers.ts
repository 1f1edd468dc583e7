// A process of many light readers of event streams, for fan-out.ts: raw sockets, since thousands of fetches would cost more than
// the server that is measured. Started with `ipc`; says how long each change took to each reader.
// `bun scripts/bench/readers.ts PORT COUNT KIND`, KIND: plain, agents (each holds a lease) or filtered (60 groups)

/** From the parent: report when every reader has got one more change; or leave. */
export type ToReaders = { readonly kind: "expect" } | { readonly kind: "stop" };
/** `at`: when each reader had the change, in ms since the epoch; `lost`: streams that ended under us. */
export type FromReaders =
  | { readonly kind: "connected"; readonly tookMs: number; readonly bytes: number }
  | { readonly kind: "changed"; readonly at: readonly number[] }
  | { readonly kind: "lost"; readonly what: string };

const [port = "", count = "", kind = "plain"] = process.argv.slice(2);
const total = Number(count);
/** Fewer than the server's backlog, beyond which the kernel answers a connection only a second later. */
const AT_ONCE = 100;
const CHANGE = Buffer.from("event: delta");

const now = (): number => performance.timeOrigin + performance.now();
const say = (message: FromReaders): void => void process.send?.(message);
const sockets: Bun.Socket[] = [];
let at: number[] = [];
let bytes = 0;

function pathOf(index: number): string {
  if (kind === "agents") return `/v1/watch?agent=host${index}.example.com&boot=${crypto.randomUUID()}&zone=a&version=1`;
  if (kind === "filtered") return `/v1/watch?service=service-${index % 60},service-${(index + 1) % 60}`;
  return "/v1/watch";
}

/** Opens one stream; resolves when its first event is there whole. */
function open(index: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let connected = false;
    void Bun.connect({
      hostname: "127.0.0.1",
      port: Number(port),
      socket: {
        open: (socket) => void socket.write(`GET ${pathOf(index)} HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\n\r\n`),
        data(_, data) {
          if (connected) {
            if (!data.includes(CHANGE)) return;
            at.push(now());
            if (at.length === total) say({ kind: "changed", at });
            return;
          }
          bytes += data.byteLength;
          // an event ends with two line breaks, and its chunk with one more
          if (data.subarray(-4).toString("latin1") !== "\n\n\r\n") return;
          connected = true;
          resolve();
        },
        close: () => say({ kind: "lost", what: `stream ${index} was closed` }),
        error: (_, error) => say({ kind: "lost", what: String(error) }),
        connectError: (_, error) => reject(error),
      },
    }).then((socket) => sockets.push(socket), reject);
  });
}

process.on("message", (message: ToReaders) => {
  if (message.kind === "stop") process.exit(0);
  at = [];
});

const start = performance.now();
let next = 0;
await Promise.all(
  Array.from({ length: AT_ONCE }, async () => {
    while (next < total) await open(next++);
  }),
);
say({ kind: "connected", tookMs: performance.now() - start, bytes });
