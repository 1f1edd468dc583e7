// From what the command line names to a service: a directory with smartstack.yaml, that file itself, or the service's own file.
import { readFileSync, statSync } from "node:fs";
import { basename, dirname, join, relative, resolve } from "node:path";
import { describeError, errorCode, Fault } from "../core/lib/errors.ts";
import { serviceName } from "../core/model/names.ts";
import { asSmartService, type SmartService } from "../core/service/smart-service.ts";
import { provideVirtualModules } from "../core/service/virtual-modules.ts";
import { type Manifest, parseManifest, plainManifest } from "./manifest.ts";

const MANIFEST = "smartstack.yaml";

/** A TypeScript service before any of its code ran. */
export type LocatedEntry = {
  readonly kind: "entry";
  /** Absolute. */
  readonly directory: string;
  /** Absolute path of the file to import. */
  readonly entry: string;
  /** Undefined: a single file without a smartstack.yaml beside it. */
  readonly manifest: Manifest | undefined;
  /** `--name`. */
  readonly name: string | undefined;
};

export type LocatedCommand = {
  readonly kind: "command";
  /** Absolute; the command runs there. */
  readonly directory: string;
  readonly command: readonly string[];
  readonly manifest: Manifest;
};

/**
 * @param target a directory or a file
 * @param name `--name`, for a file without smartstack.yaml
 * @throws Fault `config` when there is nothing to serve, or smartstack.yaml is wrong
 */
export function locateService(target: string, name: string | undefined): LocatedEntry | LocatedCommand {
  const path = resolve(target);
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined)
    throw new Fault({
      code: "config",
      message: `there is no ${target}`,
      hint: "Name a service's directory, or its file.",
    });
  if (!stats.isDirectory() && basename(path) !== MANIFEST) {
    const directory = dirname(path);
    return { kind: "entry", directory, entry: path, manifest: readManifest(join(directory, MANIFEST)), name };
  }
  const directory = stats.isDirectory() ? path : dirname(path);
  const manifest = readManifest(join(directory, MANIFEST));
  if (manifest === undefined) {
    throw new Fault({
      code: "config",
      message: `there is no ${MANIFEST} in ${directory}`,
      hint: "Make a service with smartstack gen NAME, or name its directory or file.",
    });
  }
  const { run } = manifest;
  return run.kind === "entry"
    ? { kind: "entry", directory, entry: resolve(directory, run.file), manifest, name }
    : { kind: "command", directory, command: run.command, manifest };
}

/** A command from the command line. @throws Fault `usage` without a usable name, or without a command */
export function locateCommand(
  command: readonly string[],
  name: string | undefined,
  healthcheck: string | undefined,
): LocatedCommand {
  const problem =
    command.length === 0
      ? "there is no command behind --"
      : name === undefined
        ? "a command needs a name: --name NAME"
        : serviceName.safeParse(name).error?.issues[0]?.message;
  if (problem !== undefined || name === undefined)
    throw new Fault({
      code: "usage",
      message: problem ?? "",
      hint: "For example: smartstack serve --name billing --port 5010 -- python3 app.py",
    });
  return {
    kind: "command",
    directory: process.cwd(),
    command,
    manifest: plainManifest(name, { kind: "command", command }, healthcheck),
  };
}

function readManifest(path: string): Manifest | undefined {
  try {
    return parseManifest(readFileSync(path, "utf8"), relative(process.cwd(), path));
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    if (error instanceof Fault) throw error;
    throw new Fault({ code: "config", message: `${path} cannot be read`, cause: error });
  }
}

/**
 * Imports a service's file. Its bare imports (`smartstack`, `hono`, `zod`) find this program's own modules.
 * @throws Fault `config` when the file is missing, or has no name, or another one than smartstack.yaml; `service_failed`
 * when it throws or exports the wrong thing
 */
export async function importService(located: LocatedEntry): Promise<{ service: SmartService; manifest: Manifest }> {
  const { entry } = located;
  if (statSync(entry, { throwIfNoEntry: false }) === undefined) {
    throw new Fault({
      code: "config",
      message: `there is no ${entry}`,
      hint: `It is the service's file; ${MANIFEST} names another one with entry: FILE.`,
    });
  }
  provideVirtualModules();
  let module: { readonly default?: unknown };
  try {
    module = (await import(entry)) as typeof module;
  } catch (error) {
    throw new Fault({
      code: "service_failed",
      message: `${entry} could not be loaded: ${describeError(error)}`,
      hint: whereInSource(error) ?? whereFrom(error, dirname(entry)),
    });
  }
  const service = namedService(module.default, located);
  return { service, manifest: located.manifest ?? plainManifest(service.name, { kind: "entry", file: entry }) };
}

function namedService(exported: unknown, { entry, manifest, name: given }: LocatedEntry): SmartService {
  if (manifest !== undefined && given !== undefined && manifest.name !== given) {
    throw new Fault({
      code: "config",
      message: `two names: ${MANIFEST} says ${manifest.name}, --name says ${given}`,
      hint: `Leave --name out, or change ${MANIFEST}.`,
    });
  }
  const name = manifest?.name ?? given;
  let service: SmartService;
  try {
    service = asSmartService(exported, name ?? "");
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault({ code: "service_failed", message: `${entry} is no service: ${error.message}`, hint: error.hint });
  }
  if (!serviceName.safeParse(service.name).success) {
    throw new Fault({
      code: "config",
      message: service.name === "" ? `${entry} has no name` : `"${service.name}" is no service name`,
      hint: `Write name: NAME into a ${MANIFEST} beside it, or use --name NAME: 1 to 63 of a–z, 0–9 and '-'.`,
    });
  }
  if (name !== undefined && service.name !== name) {
    throw new Fault({
      code: "config",
      message: `two names: ${manifest === undefined ? "--name" : MANIFEST} says ${name}, ${basename(entry)} says ${service.name}`,
      hint: "Make them the same: the name is what other services call.",
    });
  }
  return service;
}

/** Where a file is no TypeScript: `service.ts:4:27`, the line, and a mark under the place. */
function whereInSource(error: unknown): string | undefined {
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error;
  const position = first instanceof BuildMessage || first instanceof ResolveMessage ? first.position : null;
  if (position === null) return undefined;
  const { file, line, column, lineText } = position;
  return `${relative(process.cwd(), file)}:${line}:${column}\n${lineText}\n${lineText.slice(0, column - 1).replaceAll(/\S/g, " ")}^`;
}

/** The lines of the stack that lie in the service itself: where its author looks first. */
export function whereFrom(error: unknown, directory: string): string | undefined {
  if (!(error instanceof Error) || error.stack === undefined) return undefined;
  const lines = error.stack.split("\n").filter((line) => line.includes(directory));
  return lines.length === 0 ? undefined : lines.slice(0, 3).join("\n");
}
