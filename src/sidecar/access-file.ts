// Every request that HAProxy finished, one JSON object a line, in two files of bounded size.
import { closeSync, existsSync, fstatSync, openSync, renameSync, writeSync } from "node:fs";
import { describeError } from "../core/lib/errors.ts";
import type { Cancel, Clock } from "../core/lib/clock.ts";
import type { Logger } from "../core/lib/logger.ts";
import type { AccessRecord } from "../core/haproxy/access-log.ts";

/** Size at which the file becomes `PATH.1`, in bytes; together they take twice as much. */
const MAX_BYTES = 64 * 1024 * 1024;
/** Lines wait so long for company, in ms. */
const FLUSH_MS = 100;

export type AccessFileOptions = {
  readonly path: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** @default 64 MiB */
  readonly maxBytes?: number;
};

export interface AccessFile {
  add(record: AccessRecord): void;
  close(): void;
}

/** Opens the file and appends. A disk that refuses loses lines, never requests; it is said once. */
export function openAccessFile({ path, clock, logger, maxBytes = MAX_BYTES }: AccessFileOptions): AccessFile {
  let descriptor: number | undefined;
  let size = 0;
  let lines: string[] = [];
  let timer: Cancel | undefined;
  let trouble: string | undefined;

  const open = (): number => {
    if (descriptor !== undefined) return descriptor;
    descriptor = openSync(path, "a", 0o640);
    size = fstatSync(descriptor).size;
    return descriptor;
  };
  const close = (): void => {
    if (descriptor !== undefined) closeSync(descriptor);
    descriptor = undefined;
  };

  const flush = (): void => {
    timer?.();
    timer = undefined;
    if (lines.length === 0) return;
    const batch = lines.join("");
    lines = [];
    try {
      // whoever moved the file away gets a new one, not more lines in the old
      if (descriptor !== undefined && !existsSync(path)) close();
      let target = open();
      if (size > 0 && size + batch.length > maxBytes) {
        close();
        renameSync(path, `${path}.1`);
        target = open();
      }
      size += writeSync(target, batch);
      trouble = undefined;
    } catch (error) {
      const message = describeError(error);
      if (trouble !== message) logger.error({ file: path }, `the access log loses lines: ${message}`);
      trouble = message;
      close();
    }
  };

  return {
    add(record) {
      lines.push(`${formatAccess(record)}\n`);
      timer ??= clock.after(FLUSH_MS, flush);
    },
    close() {
      flush();
      close();
    },
  };
}

function formatAccess(record: AccessRecord): string {
  const { endedAt, timings, ...rest } = record;
  const { queue, connect, response, total } = timings;
  return JSON.stringify({
    time: new Date(endedAt).toISOString(),
    ...rest,
    queueMs: queue,
    connectMs: connect,
    responseMs: response,
    totalMs: total,
  });
}
