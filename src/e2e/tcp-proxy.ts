// A wire that a test can cut, clog or slow down.
import { connect, createServer, type Socket } from "node:net";
import { freePort } from "./process.ts";

export type TcpProxy = {
  /** `HOST:PORT` that stands for the target. */
  readonly address: string;
  /** Ends every connection and refuses new ones. */
  cut(): void;
  /** Connections stay, and nothing comes through. */
  clog(): void;
  /** Everything arrives so many ms later. */
  slow(ms: number): void;
  /** Ends every connection right after the next `bytes` bytes towards the client. */
  cutAfter(bytes: number): void;
  /** As at the beginning. */
  mend(): void;
  stop(): Promise<void>;
};

/** @param target `HOST:PORT` */
export async function tcpProxy(target: string): Promise<TcpProxy> {
  const [host = "", targetPort = ""] = target.split(":");
  const sockets = new Set<Socket>();
  let mode: "open" | "cut" | "clogged" = "open";
  let delay = 0;
  let left = Number.POSITIVE_INFINITY;
  const endAll = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  const pass = (from: Socket, to: Socket, counts: boolean): void => {
    from.on("data", (bytes: Buffer) => {
      if (mode !== "open") return;
      const send = (): void => {
        if (counts) left -= bytes.length;
        if (left >= 0) {
          to.write(bytes);
          return;
        }
        const part = bytes.subarray(0, Math.max(0, bytes.length + left));
        left = Number.POSITIVE_INFINITY;
        to.write(part, endAll);
      };
      if (delay === 0) send();
      else setTimeout(send, delay);
    });
    from.on("close", () => {
      sockets.delete(from);
      to.destroy();
    });
    from.on("error", () => to.destroy());
  };
  const server = createServer((near) => {
    if (mode === "cut") {
      near.destroy();
      return;
    }
    const far = connect(Number(targetPort), host);
    sockets.add(near).add(far);
    pass(near, far, false);
    pass(far, near, true);
  });
  const port = await freePort();
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  return {
    address: `127.0.0.1:${port}`,
    cut() {
      mode = "cut";
      endAll();
    },
    clog() {
      mode = "clogged";
    },
    slow(ms) {
      delay = ms;
    },
    cutAfter(bytes) {
      left = bytes;
    },
    mend() {
      mode = "open";
      delay = 0;
      left = Number.POSITIVE_INFINITY;
    },
    async stop() {
      endAll();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
