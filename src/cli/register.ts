// register and deregister: instances that no agent owns, put by hand.
import { AtlasProblem } from "../core/api/atlas-client.ts";
import { Fault } from "../core/lib/errors.ts";
import { parseInstanceName } from "../core/model/names.ts";
import { type Command, defineCommand, usageError } from "./command.ts";
import { connectAtlas } from "./connection.ts";
import { EXIT } from "./exit-codes.ts";
import {
  checkNames,
  explainUnapplied,
  formatApplied,
  instancePath,
  servicePath,
  write,
  writeOptions,
} from "./operator.ts";
import { flagOnly, host, integer, option, port, text, toggle } from "./options.ts";
import { answer } from "./output.ts";

export const register: Command = defineCommand({
  name: "register",
  summary: "add an instance by hand, one that no sidecar looks after",
  arguments: [
    { name: "SERVICE", describe: "the service; one that is not defined gets the defaults" },
    { name: "INSTANCE", describe: "HOST or HOST:PORT" },
  ],
  examples: [
    "smartstack register elasticsearch host009 --port 9200",
    "smartstack register redis host010:6379 --address 10.0.0.10 --zone a --disabled",
  ],
  options: {
    port: option(port, "where it listens, default the port in its name"),
    address: option(host, "where it is reached, default its host"),
    weight: option(integer("0-256", 0, 256), "its share of the traffic, default 100"),
    zone: option(text("ZONE"), "its zone"),
    version: option(text("VERSION"), "the version it runs"),
    disabled: option(toggle, "take no traffic until it is enabled", false),
    ...writeOptions,
  },
  async run({ values, sources, args: [service = "", instance = ""] }) {
    checkNames(register, service, instance);
    const number = values.port ?? parseInstanceName(instance)?.port;
    if (number === undefined) throw usageError(register, `missing --port, since ${instance} names none`);
    const { address, weight, zone, version, disabled } = values;
    const body = { port: number, address, weight, zone, version, ...(disabled ? { enabled: false } : {}) };
    const client = connectAtlas({ values, sources });
    const target = `${service}/${instance}`;
    const written = await write(client, instancePath(service, instance), { method: "PUT", body }, values).catch(
      (error: unknown) => {
        throw explainUnapplied(error, `${target} is registered`, values.timeout);
      },
    );
    const what = written.changed === false ? "was registered so already" : "registered";
    answer(values.json, { service, instance, ...written }, () => `${target} ${what}${formatApplied(written)}`);
    return EXIT.done;
  },
});

export const deregister: Command = defineCommand({
  name: "deregister",
  summary: "remove an instance, or a whole service",
  arguments: [
    { name: "SERVICE", describe: "the service" },
    { name: "INSTANCE", describe: "its instance; without one the service itself goes", optional: true },
  ],
  examples: ["smartstack deregister elasticsearch host009", "smartstack deregister elasticsearch --force"],
  options: {
    force: flagOnly(option(toggle, "remove a service together with the instances it still has", false)),
    ...writeOptions,
  },
  async run({ values, sources, args: [service = "", instance] }) {
    checkNames(deregister, service, instance);
    if (values.force && instance !== undefined) throw usageError(deregister, "--force is for a whole service");
    const path = instance === undefined ? servicePath(service) : instancePath(service, instance);
    const target = instance === undefined ? service : `${service}/${instance}`;
    const client = connectAtlas({ values, sources });
    const request = { method: "DELETE", ...(values.force ? { query: { force: "true" } } : {}) } as const;
    const written = await write(client, path, request, values).catch((error: unknown) => {
      if (error instanceof AtlasProblem && error.code === "conflict" && instance === undefined) {
        const hint = "Deregister them first, or give --force to remove them with it.";
        throw new Fault({ code: "conflict", message: `${service} still has instances`, hint });
      }
      throw explainUnapplied(error, `${target} is gone from Atlas`, values.timeout);
    });
    const what = written.changed === false ? "was not there" : "deregistered";
    answer(values.json, { service, instance, ...written }, () => `${target} ${what}${formatApplied(written)}`);
    return EXIT.done;
  },
});
