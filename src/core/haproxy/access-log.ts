// HAProxy's access log, read from a named pipe. Why a pipe and not a datagram socket: docs/decisions/0002-access-log-transport.md.
import { closeSync, constants, openSync, readSync } from "node:fs";
import { z } from "zod";
import { type Cancel, type Clock, systemClock } from "../lib/clock.ts";
import { errorCode, Fault } from "../lib/errors.ts";
import { parseJson } from "../lib/json.ts";
import { instanceOfServer } from "./layout.ts";
import { enlargePipe } from "./pipe.ts";

/** One request that HAProxy has finished with. Times are in ms, -1 where that phase was never reached. */
export type AccessRecord = {
  /** Milliseconds since the epoch, when it ended. */
  readonly endedAt: number;
  /** Undefined when there was no request to give one to. */
  readonly requestId: string | undefined;
  /** As the caller named it, known or not; undefined when he named none. */
  readonly service: string | undefined;
  /** The instance that it went to; undefined when it went to none. */
  readonly instance: string | undefined;
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  /** -1 when the client left before there was an answer. */
  readonly status: number;
  /** Connections that failed before one was made. */
  readonly retries: number;
  readonly redispatched: boolean;
  /** HAProxy's two letters for how it ended, `--` when in order: configuration manual 8.5. */
  readonly termination: string;
  readonly timings: {
    readonly queue: number;
    readonly connect: number;
    readonly response: number;
    readonly total: number;
  };
  readonly bytesSent: number;
  readonly bytesReceived: number;
};

const lineSchema = z.object({
  end: z.number(),
  id: z.string(),
  service: z.string(),
  instance: z.string(),
  method: z.string(),
  path: z.string(),
  status: z.number(),
  state: z.string(),
  retries: z.string(),
  queue: z.number(),
  connect: z.number(),
  response: z.number(),
  total: z.number(),
  sent: z.string(),
  received: z.string(),
});

/** Undefined when the line is none of ours, or was cut. */
export function parseAccessLine(line: string): AccessRecord | undefined {
  const parsed = lineSchema.safeParse(parseJson(line));
  if (!parsed.success) return undefined;
  const { data } = parsed;
  return {
    endedAt: data.end,
    requestId: orUndefined(data.id),
    service: orUndefined(data.service),
    instance: data.instance.startsWith("<") ? undefined : instanceOfServer(data.instance),
    method: data.method,
    path: data.path,
    status: data.status,
    // a '+' says that the last try went to another server
    retries: Number(data.retries),
    redispatched: data.retries.startsWith("+"),
    termination: data.state,
    timings: { queue: data.queue, connect: data.connect, response: data.response, total: data.total },
    bytesSent: Number(data.sent),
    bytesReceived: Number(data.received),
  };
}

/** HAProxy writes `-` for what was never set. */
function orUndefined(text: string): string | undefined {
  return text === "-" || text === "" ? undefined : text;
}

export type AccessLogOptions = {
  /** Path of the named pipe, made by `makePipe`. */
  readonly path: string;
  readonly onRecord: (record: AccessRecord) => void;
  /** Whatever else HAProxy logs: a server went up or down, say. */
  readonly onNotice?: (line: string) => void;
  readonly clock?: Clock;
};

export interface AccessLog {
  /** Reads what is there, and lets go of the pipe; HAProxy's lines wait in it for the next reader, then are dropped. */
  close(): void;
}

// The pipe is polled, not waited on: a reader that sleeps in poll() is woken by every single line, which costs HAProxy
// 1.7 µs of its 24 µs per request (measured); a poll finds hundreds of lines at once.
const BUSY_POLL_MS = 20;
const IDLE_POLL_MS = 100;
const CHUNK = 65_536;
/** A pipe this full at a poll must be read again sooner. */
const PRESSURE = 262_144;
const LONGEST_LINE = 8_192;

/** @throws Fault `access_log_failed` when the pipe cannot be opened */
export function openAccessLog({ path, onRecord, onNotice, clock = systemClock }: AccessLogOptions): AccessLog {
  const descriptor = openPipe(path);
  enlargePipe(descriptor);
  const buffer = Buffer.allocUnsafe(CHUNK);
  let rest = "";
  let timer: Cancel | undefined;

  const take = (line: string): void => {
    if (line === "") return;
    const record = line.startsWith("{") ? parseAccessLine(line) : undefined;
    if (record !== undefined) onRecord(record);
    else onNotice?.(line);
  };

  /** How many bytes were there. */
  const drain = (): number => {
    let total = 0;
    // bounded: a storm of lines must not starve the rest of this process
    while (total < 4 * PRESSURE) {
      const count = readAvailable(descriptor, buffer);
      if (count === 0) break;
      total += count;
      // HAProxy escapes everything beyond ASCII
      const lines = (rest + buffer.toString("latin1", 0, count)).split("\n");
      rest = lines.pop() ?? "";
      if (rest.length > LONGEST_LINE) rest = "";
      for (const line of lines) take(line);
      if (count < CHUNK) break;
    }
    return total;
  };

  const poll = (): void => {
    const count = drain();
    timer = clock.after(count > PRESSURE ? 1 : count > 0 ? BUSY_POLL_MS : IDLE_POLL_MS, poll);
  };
  poll();

  return {
    close() {
      timer?.();
      timer = undefined;
      drain();
      closeSync(descriptor);
    },
  };
}

function openPipe(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw new Fault({ code: "access_log_failed", message: `cannot read HAProxy's access log ${path}`, cause });
  }
}

/** 0 when the pipe is empty. */
function readAvailable(descriptor: number, buffer: Buffer): number {
  try {
    return readSync(descriptor, buffer, 0, buffer.length, null);
  } catch (error) {
    if (errorCode(error) === "EAGAIN") return 0;
    throw error;
  }
}
