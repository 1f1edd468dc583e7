import pino, { type DestinationStream, type Logger } from "pino";
import pretty from "pino-pretty";

export type { Logger } from "pino";

export type LoggerOptions = {
  /** The program that speaks: `atlas`, `sidecar`, a service's name. */
  readonly name: string;
  /** @default "info" */
  readonly level?: string;
  /** `auto`: people's form on a terminal, JSON lines elsewhere. @default "auto" */
  readonly format?: "auto" | "json" | "pretty";
  /** Where lines go. @default standard error, since standard output belongs to a command's answer */
  readonly destination?: DestinationStream;
};

/**
 * A structured logger. Destinations are always given, never a pino `transport`: those start worker threads, which a
 * compiled binary cannot find, and then every line is lost without a word.
 */
export function createLogger(options: LoggerOptions): Logger {
  const { name, level = "info", format = "auto" } = options;
  const pretends = format === "pretty" || (format === "auto" && process.stderr.isTTY);
  const destination =
    options.destination ??
    (pretends
      ? pretty({ destination: 2, sync: true, ignore: "pid,hostname", translateTime: "HH:MM:ss.l", singleLine: true })
      : pino.destination({ dest: 2, sync: true }));
  return pino({ name, level, base: { pid: process.pid } }, destination);
}

/** A logger that writes nowhere, for tests and for libraries whose caller gave none. */
export const silentLogger: Logger = pino({ level: "silent" });
