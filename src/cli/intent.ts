// enable and disable: the operator's intent about instances, one by one or all of a host.
import { type AtlasClient, AtlasProblem } from "../core/api/atlas-client.ts";
import { describeError, errorCode, Fault } from "../core/lib/errors.ts";
import { sameHost } from "../core/model/names.ts";
import { type Command, defineCommand, usageError } from "./command.ts";
import { connectAtlas } from "./connection.ts";
import { EXIT } from "./exit-codes.ts";
import {
  checkNames,
  explainUnapplied,
  formatApplied,
  instancePath,
  readSnapshot,
  serviceDetailSchema,
  servicePath,
  write,
  type WriteValues,
  writeOptions,
  type Written,
} from "./operator.ts";
import { flagOnly, host, option } from "./options.ts";
import { answer } from "./output.ts";

type Target = { readonly service: string; readonly instance: string };
type Outcome = Target & ({ readonly written: Written } | { readonly failure: unknown });

export const enable = intentCommand("enable", true);
export const disable = intentCommand("disable", false);

/** So many instances of a host are changed at the same time. */
const AT_ONCE = 8;

function intentCommand(name: "enable" | "disable", enabled: boolean): Command {
  const command = defineCommand({
    name,
    summary: enabled ? "let requests go to an instance again" : "take an instance out of use, without losing a request",
    arguments: [
      { name: "SERVICE", describe: "the service; with --host it may be left out", optional: true },
      { name: "INSTANCE", describe: "its instance, HOST or HOST:PORT", optional: true },
    ],
    examples: [
      `smartstack ${name} identity host001:5004 --wait`,
      `smartstack ${name} --host host001 --reason 'new disk' --wait --timeout 30s`,
    ],
    options: {
      // a profile with SMARTSTACK_HOST, as sidecars and services have it, must not make one instance a whole host
      host: flagOnly(option(host, "every instance of this host, instead of INSTANCE")),
      ...writeOptions,
    },
    async run({ values, sources, args: [service, instance] }) {
      checkNames(command, service, instance);
      if (values.host === undefined && (service === undefined || instance === undefined))
        throw usageError(command, `missing ${service === undefined ? "SERVICE and INSTANCE, or --host" : "INSTANCE"}`);
      if (values.host !== undefined && instance !== undefined)
        throw usageError(command, "takes INSTANCE or --host, not both");
      const client = connectAtlas({ values, sources });
      const targets =
        service !== undefined && instance !== undefined
          ? [{ service, instance }]
          : await targetsOf(client, values.host ?? "", service);
      const outcomes = await changeAll(client, targets, enabled, values);
      const shown = outcomes.map(({ service, instance, ...outcome }) => ({
        service,
        instance,
        enabled,
        ...jsonOf(outcome),
      }));
      answer(values.json, values.host === undefined ? shown[0] : shown, () =>
        formatOutcomes(outcomes, name).join("\n"),
      );
      const failures = outcomes.flatMap((outcome) => ("failure" in outcome ? [outcome.failure] : []));
      if (failures.length > 0) throw summarise(failures);
      return EXIT.done;
    },
  });
  return command;
}

/** The instances of a host, of one service or of all. @throws Fault `not_found` when there are none */
async function targetsOf(client: AtlasClient, wanted: string, service: string | undefined): Promise<readonly Target[]> {
  const { instances } = await readSnapshot(client);
  const targets = instances.filter(
    (instance) => sameHost(instance.host, wanted) && (service === undefined || instance.service === service),
  );
  if (targets.length > 0) return targets;
  const hosts = [...new Set(instances.map((instance) => instance.host))].sort();
  throw new Fault({
    code: "not_found",
    message: `no instance${service === undefined ? "" : ` of ${service}`} is registered on ${wanted}`,
    hint: hosts.length === 0 ? "No host has any." : `Hosts with instances: ${someOf(hosts)}.`,
  });
}

async function changeAll(
  client: AtlasClient,
  targets: readonly Target[],
  enabled: boolean,
  values: WriteValues,
): Promise<readonly Outcome[]> {
  const outcomes: Outcome[] = [];
  for (let start = 0; start < targets.length; start += AT_ONCE) {
    const batch = targets.slice(start, start + AT_ONCE);
    outcomes.push(...(await Promise.all(batch.map((target) => change(client, target, enabled, values)))));
  }
  return outcomes;
}

async function change(client: AtlasClient, target: Target, enabled: boolean, values: WriteValues): Promise<Outcome> {
  const { service, instance } = target;
  try {
    const path = instancePath(service, instance);
    return { service, instance, written: await write(client, path, { method: "PATCH", body: { enabled } }, values) };
  } catch (error) {
    const done = `${service}/${instance} is ${enabled ? "enabled" : "disabled"}`;
    const failure = explainUnapplied(await explainMissing(client, error, service), done, values.timeout);
    return { service, instance, failure };
  }
}

/** `HOST` for `HOST:PORT` is the usual slip: say which instances there are. */
async function explainMissing(client: AtlasClient, error: unknown, service: string): Promise<unknown> {
  if (!(error instanceof AtlasProblem) || error.code !== "not_found") return error;
  const known = await client
    .request(servicePath(service), { schema: serviceDetailSchema })
    .then(({ instances }) => instances.map(({ instance }) => instance))
    .catch(() => []);
  const hint = known.length === 0 ? undefined : `${service} has ${someOf(known)}.`;
  return new Fault({ code: "not_found", message: error.message, hint, cause: error.cause });
}

function someOf(names: readonly string[]): string {
  return names.length <= 8 ? names.join(", ") : `${names.slice(0, 8).join(", ")} and ${names.length - 8} more`;
}

function formatOutcomes(outcomes: readonly Outcome[], name: "enable" | "disable"): readonly string[] {
  return outcomes.flatMap((outcome) => {
    if ("failure" in outcome) return [];
    const { service, instance, written } = outcome;
    const what = written.changed === false ? `was ${name}d already` : `${name}d`;
    return [`${service}/${instance} ${what}${formatApplied(written)}`];
  });
}

function jsonOf(outcome: { readonly written: Written } | { readonly failure: unknown }): object {
  if ("written" in outcome) return outcome.written;
  return { error: { code: errorCode(outcome.failure) ?? "internal", message: describeError(outcome.failure) } };
}

/** One failure as it is; of several, all messages under the gravest code: not applied is the mildest, the writes stand. */
function summarise(failures: readonly unknown[]): unknown {
  if (failures.length === 1) return failures[0];
  const gravest = failures.find((failure) => errorCode(failure) !== "not_applied") ?? failures[0];
  return new Fault({
    code: errorCode(gravest) ?? "internal",
    message: failures.map(describeError).join("\n"),
    hint: gravest instanceof Fault ? gravest.hint : undefined,
    cause: undefined,
  });
}
