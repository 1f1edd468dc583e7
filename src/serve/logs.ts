// The logs of a service: one access line per request and whatever its logger says, both to standard output and to
// `<log-dir>/<service>.access.log` and `.error.log`.
import { join } from "node:path";
import pretty from "pino-pretty";
import type { Cancel, Clock } from "../core/lib/clock.ts";
import { describeError, Fault } from "../core/lib/errors.ts";
import { createLogger, type Logger } from "../core/lib/logger.ts";
import type { Answered } from "../core/service/application.ts";
import { descriptorTarget, LineSink, LogOutput, type OutputTarget } from "./line-sink.ts";
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

/** How long written lines are waited for, in ms. */
const FLUSH_PATIENCE_MS = 2_000;

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
  const output = (target: OutputTarget): LogOutput => new LogOutput(target, onError);
  const stdout = output(descriptorTarget(1));
  const errorOutput = output(errorFile);
  const accessOutput = accessFile && output(accessFile);

  // people get another text than files; machines get the same
  const people = config.format === "pretty" || (config.format === "auto" && process.stdout.isTTY);
  const forPeople = people ? new LineSink([stdout], clock) : undefined;
  const errors = new LineSink(people ? [errorOutput] : [errorOutput, stdout], clock);
  const accesses = accessOutput && new LineSink(people ? [accessOutput] : [accessOutput, stdout], clock);
  const sinks = [errors, accesses, forPeople].filter((sink) => sink !== undefined);

  const format = pretty.prettyFactory({
    ignore: "pid,hostname,name",
    translateTime: "HH:MM:ss.l",
    singleLine: true,
    colorize: process.stdout.isTTY,
  });
  const logger = createLogger({
    name: service,
    level: config.level,
    destination: {
      write(line) {
        errors.write(line);
        forPeople?.write(format(line));
      },
    },
  });
  const line = accessLine(service);
  const onAnswer =
    accesses &&
    ((answered: Answered): void => {
      accesses.write(line(answered));
      forPeople?.write(accessLineForPeople(answered));
    });
  // what nobody reads must not keep a service from ending
  const flush = async (): Promise<void> => {
    let cancel: Cancel = () => undefined;
    const patience = new Promise<void>((resolve) => {
      cancel = clock.after(FLUSH_PATIENCE_MS, resolve);
    });
    await Promise.race([Promise.all(sinks.map((sink) => sink.flush())), patience]);
    cancel();
  };
  return {
    logger,
    onAnswer,
    async reopen() {
      await errorOutput.between(() => errorFile.reopen());
      await accessOutput?.between(() => accessFile?.reopen());
    },
    flush,
    flushSync() {
      for (const sink of sinks) sink.flushSync();
    },
    async close() {
      await flush();
      await errorOutput.between(() => errorFile.close());
      await accessOutput?.between(() => accessFile?.close());
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

/**
 * The line of an answered request; `micros` is the time from its arrival to the answer's headers. Paths without their query:
 * it may hold what no log should. Put together by hand, and what repeats is kept, since this happens for every request.
 */
function accessLine(service: string): (answered: Answered) => string {
  const names = new Map<string, Map<string, string>>();
  let [at, time] = [0, ""];
  let [agent, userAgent]: [string | null, string] = [null, ""];
  return ({ exchange, status, tookMs }) => {
    const { request, path, requestId, traceId, route, arrivedAt } = exchange;
    const { method } = request;
    let ofRoute = names.get(route);
    if (ofRoute === undefined) names.set(route, (ofRoute = new Map()));
    let name = ofRoute.get(method);
    if (name === undefined) {
      name = `,"service":${quote(service)},"method":${quote(method)},"route":${quote(route)},"path":`;
      // Bun lets through the methods it knows, and no other: there are few
      ofRoute.set(method, name);
    }
    if (arrivedAt !== at) [at, time] = [arrivedAt, String(arrivedAt)];
    const given = request.headers.get("user-agent");
    if (given !== agent) [agent, userAgent] = [given, given === null ? "" : `,"userAgent":${quote(given)}`];
    const trace = traceId === undefined ? "" : `,"traceId":"${traceId}"`;
    return `{"time":${time}${name}${quote(path)},"status":${status},"micros":${Math.round(tookMs * 1_000)},"requestId":"${requestId}"${trace}${userAgent}}\n`;
  };
}

const quote = (text: string): string => JSON.stringify(text);

function accessLineForPeople({ exchange, status, tookMs }: Answered): string {
  const { request, path, arrivedAt } = exchange;
  const time = new Date(arrivedAt).toISOString().slice(11, 23);
  return `[${time}] ${request.method} ${path} ${status} ${tookMs.toFixed(1)} ms\n`;
}
