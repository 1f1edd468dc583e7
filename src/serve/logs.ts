// The logs of a service: one access line per request and whatever its logger says, both to standard output and to
// `<log-dir>/<service>.access.log` and `.error.log`.
import { join } from "node:path";
import pretty from "pino-pretty";
import type { Clock } from "../core/lib/clock.ts";
import { describeError, Fault } from "../core/lib/errors.ts";
import { createLogger, type Logger } from "../core/lib/logger.ts";
import type { Answered } from "../core/service/application.ts";
import { pathOf } from "../core/service/exchange.ts";
import { descriptorTarget, LineSink } from "./line-sink.ts";
import { LogFile, type LogFileOptions } from "./log-file.ts";

export type LogsConfig = {
  readonly directory: string;
  readonly level: string;
  /** Of standard output; files are JSON always. */
  readonly format: "auto" | "json" | "pretty";
  readonly accessLog: boolean;
  readonly maxBytes?: number | undefined;
  readonly keep?: number | undefined;
};

export type ServiceLogs = {
  readonly logger: Logger;
  /** Undefined when access logging is off: then nobody makes the line. */
  readonly onAnswer: ((answered: Answered) => void) | undefined;
  /** SIGHUP: opens the files anew. */
  reopen(): Promise<void>;
  flush(): Promise<void>;
  /** For a process that dies this instant. */
  flushSync(): void;
  /** Flushes and closes. */
  close(): Promise<void>;
};

/** @throws Fault `log_dir` when the files cannot be written */
export function openLogs(service: string, config: LogsConfig, clock: Clock): ServiceLogs {
  const open = (kind: "access" | "error"): LogFile =>
    openFile(join(config.directory, `${service}.${kind}.log`), config, clock);
  const errorFile = open("error");
  const accessFile = config.accessLog ? open("access") : undefined;

  // a failed write is told on the other way out, at most once a minute
  let toldAt = Number.NEGATIVE_INFINITY;
  const onError = (error: unknown): void => {
    if (clock.now() - toldAt < 60_000) return;
    toldAt = clock.now();
    process.stderr.write(`smartstack: log lines of ${service} are lost: ${describeError(error)}\n`);
  };
  const stdout = new LineSink(descriptorTarget(1), clock, onError);
  const errors = new LineSink(errorFile, clock, onError);
  const accesses = accessFile && new LineSink(accessFile, clock, onError);
  const sinks = [stdout, errors, ...(accesses === undefined ? [] : [accesses])];

  const people = config.format === "pretty" || (config.format === "auto" && process.stdout.isTTY);
  const forPeople = people
    ? pretty.prettyFactory({
        ignore: "pid,hostname,name",
        translateTime: "HH:MM:ss.l",
        singleLine: true,
        colorize: process.stdout.isTTY,
      })
    : undefined;
  const logger = createLogger({
    name: service,
    level: config.level,
    destination: {
      write(line) {
        stdout.write(forPeople === undefined ? line : forPeople(line));
        errors.write(line);
      },
    },
  });
  const onAnswer =
    accesses === undefined
      ? undefined
      : (answered: Answered): void => {
          const line = accessLine(service, answered);
          stdout.write(forPeople === undefined ? line : accessLineForPeople(answered));
          accesses.write(line);
        };
  const flush = async (): Promise<void> => {
    await Promise.all(sinks.map((sink) => sink.flush()));
  };
  return {
    logger,
    onAnswer,
    async reopen() {
      await errors.between(() => errorFile.reopen());
      await accesses?.between(() => accessFile?.reopen());
    },
    flush,
    flushSync() {
      for (const sink of sinks) sink.flushSync();
    },
    async close() {
      await flush();
      await errors.between(() => errorFile.close());
      await accesses?.between(() => accessFile?.close());
    },
  };
}

function openFile(path: string, config: LogsConfig, clock: Clock): LogFile {
  const options: LogFileOptions = {
    path,
    ...(config.maxBytes === undefined ? {} : { maxBytes: config.maxBytes }),
    ...(config.keep === undefined ? {} : { keep: config.keep }),
  };
  try {
    return new LogFile(options, clock);
  } catch (error) {
    throw new Fault({
      code: "log_dir",
      message: `the log ${path} cannot be written`,
      hint: "Give this user the directory, or name another one with --log-dir.",
      cause: error,
    });
  }
}

/** Paths without their query: it may hold what no log should. Put together by hand: it happens for every request. */
function accessLine(service: string, { exchange, status, tookMs }: Answered): string {
  const { request, requestId, traceparent, route, arrivedAt } = exchange;
  const userAgent = request.headers.get("user-agent") ?? "";
  const from = request.headers.get("x-forwarded-for") ?? "";
  return `{"time":${arrivedAt},"service":"${service}","method":${quote(request.method)},"path":${quote(pathOf(request.url))},"route":${quote(route)},"status":${status},"ms":${tookMs.toFixed(2)},"requestId":"${requestId}","traceId":"${traceparent.slice(3, 35)}"${from === "" ? "" : `,"from":${quote(from)}`}${userAgent === "" ? "" : `,"userAgent":${quote(userAgent)}`}}\n`;
}

const quote = (text: string): string => JSON.stringify(text);

function accessLineForPeople({ exchange, status, tookMs }: Answered): string {
  const { request, arrivedAt } = exchange;
  const time = new Date(arrivedAt).toISOString().slice(11, 23);
  return `[${time}] ${request.method} ${pathOf(request.url)} ${status} ${tookMs.toFixed(1)} ms\n`;
}
