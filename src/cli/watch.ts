// watch: changes of the registry as they happen.
import { z } from "zod";
import { systemClock } from "../core/lib/clock.ts";
import { errorCode } from "../core/lib/errors.ts";
import type { Delta, Snapshot } from "../core/model/snapshot.ts";
import { formatChange } from "./audit.ts";
import { type Command, defineCommand } from "./command.ts";
import { atlasAccess, connectAtlas } from "./connection.ts";
import { EXIT } from "./exit-codes.ts";
import { checkNames, readOptions } from "./operator.ts";
import { print } from "./output.ts";
import { plural } from "./table.ts";

export const watch: Command = defineCommand({
  name: "watch",
  summary: "changes of the registry as they happen, until Ctrl-C",
  arguments: [{ name: "SERVICE", describe: "only these services", optional: true, variadic: true }],
  examples: ["smartstack watch", "smartstack watch identity billing", "smartstack watch --json | jq .revision"],
  options: readOptions,
  async run({ values, sources, args }) {
    for (const service of args) checkNames(watch, service);
    const { watchAtlas } = await import("../core/api/watch-client.ts");
    const { silentLogger } = await import("../core/lib/logger.ts");
    // also the test that Atlas can be reached at all: afterwards the watch comes back by itself
    const client = connectAtlas({ values, sources });
    const { realm } = await client.request("/v1/info", { schema: z.object({ realm: z.string() }) });
    const closed = outputClosed();
    let before: Snapshot | undefined;
    const following = watchAtlas(
      {
        ...atlasAccess({ values, sources }),
        realm,
        services: args.length === 0 ? undefined : args,
        clock: systemClock,
        logger: silentLogger,
      },
      {
        onState(snapshot, delta) {
          if (values.json)
            print(JSON.stringify({ event: delta === undefined ? "snapshot" : "delta", ...(delta ?? snapshot) }));
          else if (delta === undefined || before === undefined) print(headOf(snapshot));
          else
            print(
              describeDelta(before, delta)
                .map((line) => `${timeOf(systemClock.now())}  ${line}`)
                .join("\n"),
            );
          before = snapshot;
        },
        onStatus(status) {
          if (status.kind === "waiting") process.stderr.write(`smartstack: ${status.failure.message}; trying again\n`);
        },
      },
    );
    await closed;
    await following.stop();
    return EXIT.done;
  },
});

/** Resolves when nobody reads any more (`smartstack watch | head -5`). */
function outputClosed(): Promise<void> {
  return new Promise((resolve) => {
    process.stdout.on("error", (error) => {
      if (errorCode(error) === "EPIPE") resolve();
    });
  });
}

function headOf({ realm, revision, services, instances }: Snapshot): string {
  const counts = `${plural(Object.keys(services).length, "service")}, ${plural(instances.length, "instance")}`;
  return `realm ${realm} · revision ${revision} · ${counts}`;
}

function timeOf(ms: number): string {
  return new Date(ms).toTimeString().slice(0, 8);
}

/** One line for each thing that changed: `48214  identity/host001:5004  enabled true → false`. */
export function describeDelta(before: Snapshot, delta: Delta): readonly string[] {
  const known = new Map(before.instances.map((instance) => [instance.id, instance]));
  const lines = [
    ...Object.entries(delta.services.put).map(([service, definition]) => {
      const old = before.services[service];
      return [service, old === undefined ? "defined" : formatChange(old, definition)] as const;
    }),
    ...delta.services.delete.map((service) => [service, "removed"] as const),
    ...delta.instances.put.map((instance) => {
      const old = known.get(instance.id);
      const at = `registered at ${instance.address}:${instance.port}`;
      return [instance.id, old === undefined ? at : formatChange(old, instance)] as const;
    }),
    ...delta.instances.delete.map(({ id, reason }) => [id, `removed, ${reason ?? "nobody said why"}`] as const),
  ];
  return lines.map(([what, change]) => `${delta.revision}  ${what}  ${change === "" ? "unchanged" : change}`);
}
