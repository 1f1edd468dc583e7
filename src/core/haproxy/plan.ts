// The way from what runs to what should run. Pure: every case is a pair in plan.test.ts. Changes of instances become
// commands for HAProxy's runtime API; only what a command cannot say becomes a reload, and then in words why.
import type { Definition } from "../model/service.ts";
import { changesOf, type Command, removalsOf, type RunningServers } from "./changes.ts";
import type { Backend, Layout } from "./layout.ts";
import type { Loaded } from "./loaded.ts";
import type { Structure } from "./render.ts";

/** What runs, read back. */
export type Running = {
  /** What it was loaded with; undefined when nobody knows (a HAProxy that was started from other files). */
  readonly loaded: Loaded | undefined;
  /** Backend → server name → server. */
  readonly servers: ReadonlyMap<string, RunningServers>;
};

/** What should run. */
export type Wanted = { readonly layout: Layout; readonly structure: Structure };

export type Plan =
  | { readonly kind: "none" }
  | { readonly kind: "runtime"; readonly commands: readonly Command[] }
  /** `commands` are what the running process can do at once, before the reload. */
  | { readonly kind: "reload"; readonly reasons: readonly string[]; readonly commands: readonly Command[] };

export function plan(running: Running, wanted: Wanted): Plan {
  const reasons = reloadReasons(running, wanted);
  const commands = [...wanted.layout.backends.values()].flatMap((backend) => {
    const servers = running.servers.get(backend.name);
    return servers === undefined ? [] : changesOf(backend, servers);
  });
  const names = new Set([...wanted.layout.backends.values()].map(({ name }) => name));
  for (const [name, servers] of running.servers) {
    // a service that goes loses its servers now and its backend with the reload
    if (!names.has(name)) commands.push(...removalsOf(name, servers, NOBODY));
  }
  if (reasons.length > 0) return { kind: "reload", reasons, commands };
  return commands.length > 0 ? { kind: "runtime", commands } : { kind: "none" };
}

const NOBODY: ReadonlySet<string> = new Set();

function reloadReasons({ loaded, servers }: Running, { layout, structure }: Wanted): readonly string[] {
  if (loaded === undefined) return ["the running HAProxy was loaded with something else"];
  const reasons = loaded.structure.frame === structure.frame ? [] : ["the settings of HAProxy itself changed"];
  for (const [service, backend] of layout.backends) {
    const before = loaded.structure.backends.get(service);
    if (before === undefined) reasons.push(`service "${service}" added`);
    else if (!servers.has(backend.name)) reasons.push(`service "${service}" is missing in the running HAProxy`);
    else if (before !== structure.backends.get(service)) {
      const changes = describeChange(loaded.definitions[service], backend, before);
      if (changes !== undefined) reasons.push(`service "${service}" changed: ${changes}`);
    }
  }
  for (const service of loaded.structure.backends.keys()) {
    if (!layout.backends.has(service)) reasons.push(`service "${service}" removed`);
  }
  return reasons;
}

/** What changed in words, or undefined when it is nothing worth a reload: checks that may become more frequent can wait for the next. */
function describeChange(before: Definition | undefined, backend: Backend, beforeText: string): string | undefined {
  const changes = before === undefined ? [] : differences(before, backend.definition);
  if (changes.length > 0) return changes.join(", ");
  const wasEvery = Number(/ inter (\d+)ms/.exec(beforeText)?.[1]);
  const { steadyMs } = backend.checks;
  if (Number.isNaN(wasEvery) || wasEvery === steadyMs) return "its directives";
  return wasEvery < steadyMs ? `checks every ${wasEvery} → ${steadyMs} ms, since there are more agents` : undefined;
}

/** Keys of a definition that HAProxy knows nothing of. */
const COSMETIC = new Set(["description", "owner", "datastores", "localPort", "split"]);

function differences(before: Definition, after: Definition): readonly string[] {
  const flat = (definition: Definition): Map<string, string> =>
    new Map(
      Object.entries(definition).flatMap(([key, value]): [string, string][] =>
        COSMETIC.has(key) || value === undefined
          ? []
          : key === "healthcheck" || key === "timeouts"
            ? Object.entries(value).map(([inner, leaf]) => [`${key}.${inner}`, String(leaf)])
            : [[key, JSON.stringify(value)]],
      ),
    );
  const [old, now] = [flat(before), flat(after)];
  return [...new Set([...old.keys(), ...now.keys()])]
    .filter((key) => old.get(key) !== now.get(key))
    .map((key) => `${key} ${old.get(key) ?? "unset"} → ${now.get(key) ?? "unset"}`);
}
