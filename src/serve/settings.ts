// The layers of a service's configuration, lowest first: what Atlas has for the realm will go before the file.
import { readFileSync } from "node:fs";
import { Fault } from "../core/lib/errors.ts";
import type { ConfigLayer, Defaults, GivenValue } from "../core/service/config.ts";
import { parseYaml } from "./yaml.ts";

export type SettingsSources = {
  /** `--settings FILE`. */
  readonly file: string | undefined;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Every `--set KEY=VALUE`. */
  readonly assignments: readonly string[];
};

/** @throws Fault `config` for a file that cannot be read, bad YAML, or an assignment that is none */
export function settingsLayers(defaults: Defaults, sources: SettingsSources): readonly ConfigLayer[] {
  return [
    ...(sources.file === undefined ? [] : [fileLayer(sources.file)]),
    environmentLayer(defaults, sources.environment),
    assignmentLayer(sources.assignments),
  ];
}

function fileLayer(path: string): ConfigLayer {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new Fault({ code: "config", message: `the settings file ${path} cannot be read`, cause: error });
  }
  const file = parseYaml(text);
  if (file.issues.length > 0)
    throw new Fault({
      code: "config",
      message: file.issues.map(({ line, message }) => `${path}:${line}: ${message}`).join("\n"),
    });
  const values = new Map<string, GivenValue>();
  for (const [key, raw] of Object.entries(file.values))
    values.set(key, { raw, source: `${path}:${file.lineOf([key])}` });
  return { form: "data", closed: true, values };
}

function environmentLayer(defaults: Defaults, environment: SettingsSources["environment"]): ConfigLayer {
  const values = new Map<string, GivenValue>();
  for (const key of Object.keys(defaults)) {
    const raw = environment[key];
    // an empty variable is how shells and systemd spell "unset"
    if (raw !== undefined && raw !== "") values.set(key, { raw, source: `environment ${key}` });
  }
  return { form: "text", closed: false, values };
}

function assignmentLayer(assignments: readonly string[]): ConfigLayer {
  const values = new Map<string, GivenValue>();
  for (const assignment of assignments) {
    const at = assignment.indexOf("=");
    if (at < 1) throw new Fault({ code: "config", message: "--set wants KEY=VALUE" });
    values.set(assignment.slice(0, at), { raw: assignment.slice(at + 1), source: "flag --set" });
  }
  return { form: "text", closed: true, values };
}
