// A new service, from a name to a project that is tested, has run once, and is committed; or nothing at all.
import { lstat, readdir, realpath } from "node:fs/promises";
import { basename, dirname, relative } from "node:path";
import serveUnit from "../../config/systemd/smartstack-serve@.service" with { type: "text" };
import manifest from "../../package.json" with { type: "json" };
import type { AtlasClient } from "../core/api/atlas-client.ts";
import type { Clock } from "../core/lib/clock.ts";
import { errorCode, Fault } from "../core/lib/errors.ts";
import { VERSION } from "../core/lib/version.ts";
import { findTemplate } from "./catalog.ts";
import { type Change, compare, formatDiff, formatTree } from "./changes.ts";
import type { Environment } from "./child.ts";
import { choosePort, type PortChoice } from "./choice.ts";
import { commitMessage, commitProject } from "./git.ts";
import { checkName } from "./name.ts";
import { isRegistered } from "./reservation.ts";
import { moveFiles, moveIntoPlace, stage, type Staging, writeFiles } from "./staging.ts";
import { createSteps, type StepResult } from "./steps.ts";
import { type GeneratedFile, type Placeholders, render, type Template } from "./template.ts";
import { boot, runTests } from "./verify.ts";

export type GenConfig = {
  readonly name: string;
  /** Where the project goes, absolute. */
  readonly directory: string;
  /** The caller's working directory: paths are shown relative to it. */
  readonly workingDirectory: string;
  /** The name of a built-in template, or a directory, which has a '/' in it. */
  readonly template: string;
  readonly port?: number | undefined;
  /** Print what would be made, make nothing. */
  readonly dryRun: boolean;
  /** Replace generated files of a directory that is not empty, and take a name that Atlas knows. */
  readonly force: boolean;
  readonly git: boolean;
  /** Say so when Atlas does not answer: somebody named it. */
  readonly expectAtlas: boolean;
};

export type GenDeps = {
  readonly atlas: AtlasClient;
  readonly clock: Clock;
  /** How to run this very program: the binary, or Bun and main.ts. */
  readonly program: readonly string[];
  readonly environment: Environment;
  /** Aborted when the user wants out: everything is undone. */
  readonly signal: AbortSignal;
  /** Prints one line, or several. */
  readonly print: (text: string) => void;
};

/**
 * Generates a service. Resolves when it is in place, or when a dry run is printed.
 * @throws Fault `usage` for a bad name or template; `exists`, `taken`, `unreachable`, `unwritable`, `no_port`, `tests_failed`,
 * `boot_failed`, `step_failed` otherwise; then nothing was left behind
 */
export async function generate(config: GenConfig, deps: GenDeps): Promise<void> {
  const start = deps.clock.now();
  checkName(config.name);
  const template = await findTemplate(config.template, config.workingDirectory);
  const target = await inspect(config.directory);
  if (target.kind === "used" && !config.force && !config.dryRun) throw inTheWay(config, target.path);

  const { atlas, notes } = await consult(config, deps);
  const request = { service: config.name, given: config.port, target: target.path, atlas, dryRun: config.dryRun };
  const port = await choosePort(request);
  let staging: Staging | undefined;
  let done = false;
  let touched = false;
  try {
    const files = render(template, placeholders(config.name, port.port));
    const shown = showPath(target.path, config.workingDirectory);
    deps.print(configurationLine(config, template, port, shown));
    for (const note of [...notes, ...(port.note === undefined ? [] : [port.note])]) deps.print(`  note: ${note}`);

    const changes = await compare(target.path, files);
    if (config.dryRun) {
      deps.print(`\n${formatTree(`${shown}/`, changes)}\n${formatDiff(changes)}`);
      if (target.kind === "used" && !config.force)
        deps.print(`${shown} is not empty: without --force it stays as it is.`);
      return;
    }
    if (target.kind === "used") deps.print(formatDiff(changes) || "  every generated file is as it would be written");

    staging = await stage(dirname(target.path), basename(target.path));
    await runSteps(config, deps, { template, files, staging, target, changes });
    deps.signal.throwIfAborted();
    touched = true;
    if (target.kind === "used") await moveFiles(staging.project, target.path, changed(changes));
    else await moveIntoPlace(staging.project, target.path, config.workingDirectory);
    done = true;
    deps.print(`All done in ${((deps.clock.now() - start) / 1_000).toFixed(2)} s.\nNext:  ${nextCommand(shown)}`);
  } finally {
    await port.release();
    if (!done) await port.undo();
    await staging?.remove();
    if (!touched && staging !== undefined) deps.print("Nothing was changed.");
  }
}

type Work = {
  readonly template: Template;
  readonly files: readonly GeneratedFile[];
  readonly staging: Staging;
  readonly target: Target;
  readonly changes: readonly Change[];
};

async function runSteps(config: GenConfig, deps: GenDeps, work: Work): Promise<void> {
  const { template, files, staging, target } = work;
  const { project, directory: scratch } = staging;
  const trial = { ...deps, project, template, scratch };
  const steps = createSteps(deps.clock, deps.print);
  await steps.run("generate", async () => {
    await writeFiles(project, files);
    const count = target.kind === "used" ? changed(work.changes).length : files.length;
    return { text: `${count} ${count === 1 ? "file" : "files"}` };
  });
  await steps.run("test", () => runTests(trial));
  await steps.run("boot", () => boot(trial));
  if (!config.git) return;
  await steps.run("git", async (): Promise<StepResult> => {
    if (target.kind === "used") return { text: "yours to commit" };
    const message = commitMessage(`Generate ${config.name}`, template.name);
    const outcome = await commitProject(project, dirname(target.path), message, deps);
    return outcome.kind === "committed"
      ? { text: "first commit", note: outcome.note }
      : { text: "left out", note: outcome.reason };
  });
}

/** What is at the place of the project. */
type Target = { readonly kind: "free" | "used"; readonly path: string };

async function inspect(directory: string): Promise<Target> {
  try {
    // the real place, so that a link to an empty directory stays a link
    const path = await realpath(directory);
    return { kind: (await readdir(path)).length === 0 ? "free" : "used", path };
  } catch (error) {
    const there = errorCode(error) !== "ENOENT" || (await isLink(directory));
    if (!there) return { kind: "free", path: directory };
    if (errorCode(error) === "ENOTDIR" || errorCode(error) === "ENOENT")
      throw new Fault({
        code: "exists",
        message: `${directory} is not a directory`,
        hint: "Choose another place with --dir.",
      });
    throw new Fault({ code: "unwritable", message: `cannot read ${directory}`, cause: error });
  }
}

/** A link that leads nowhere is missing to everybody but the rename. */
async function isLink(path: string): Promise<boolean> {
  return lstat(path).then(
    (entry) => entry.isSymbolicLink(),
    () => false,
  );
}

function inTheWay(config: GenConfig, path: string): Fault {
  return new Fault({
    code: "exists",
    message: `${showPath(path, config.workingDirectory)} is not empty; it is untouched`,
    hint: "--force replaces the generated files in it and nothing else, --dry-run shows what that would change, --dir DIR goes elsewhere.",
  });
}

/** Whether the name is free in Atlas, and whether Atlas can be asked further. */
async function consult(
  config: GenConfig,
  { atlas }: GenDeps,
): Promise<{ readonly atlas: AtlasClient | undefined; readonly notes: readonly string[] }> {
  const answer = await isRegistered(atlas, config.name);
  if (answer.kind === "unknown")
    return { atlas: undefined, notes: answer.reason === "away" && !config.expectAtlas ? [] : [answer.why] };
  if (!answer.value) return { atlas, notes: [] };
  if (config.force || config.dryRun) return { atlas, notes: [`Atlas knows a service ${config.name} already`] };
  throw new Fault({
    code: "taken",
    message: `Atlas knows a service ${config.name} already`,
    hint: `Choose another name, or say --force when this is that service's new home. See smartstack services.`,
  });
}

/** What the built-in templates, and own ones, can say. */
export function placeholders(name: string, port: number): Placeholders {
  const words = name.replaceAll("-", " ");
  return {
    name,
    package: name,
    title: `${words.charAt(0).toUpperCase()}${words.slice(1)}`,
    port: String(port),
    unit: unitOf(name),
    smartstack: VERSION,
    hono: manifest.dependencies.hono,
    zod: manifest.dependencies.zod,
    typesBun: manifest.devDependencies["@types/bun"],
  };
}

/** Linux takes 31 characters as a user's name. */
const LONGEST_USER = 31;

/**
 * The unit of config/, for this one service: it begins behind the comment that is about the file itself. Without `User=`, which
 * a long name has no room for, systemd makes up a name of its own for the user.
 */
function unitOf(name: string): string {
  const unit = serveUnit.slice(serveUnit.indexOf("[Unit]")).replaceAll("%i", name).trimEnd();
  return `svc-${name}`.length > LONGEST_USER ? unit.replace(/^User=.*\n/m, "") : unit;
}

function changed(changes: readonly Change[]): readonly string[] {
  return changes.filter(({ kind }) => kind !== "same").map(({ path }) => path);
}

function configurationLine(config: GenConfig, template: Template, port: PortChoice, shown: string): string {
  const parts = [
    `service ${config.name}`,
    `package ${config.name}`,
    `port ${port.port} (${port.origin})`,
    shown,
    `template ${template.name}`,
  ];
  return `  ${parts.join(" · ")}`;
}

/** `./identity`, `../identity`, or the absolute path when that is shorter. */
function showPath(path: string, workingDirectory: string): string {
  const near = relative(workingDirectory, path);
  if (near === "") return ".";
  if (near.startsWith("../..")) return path;
  return near.startsWith("..") ? near : `./${near}`;
}

function nextCommand(shown: string): string {
  if (shown === ".") return "smartstack serve";
  const path = shown.replace(/^\.\//, "");
  // as a shell reads it
  const word = /^[\w./@%+=:,-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`;
  return `smartstack serve ${word}`;
}
