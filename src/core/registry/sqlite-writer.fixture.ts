// A process that writes as fast as it can and prints what was acknowledged, until somebody kills it.
import { describeError } from "../lib/errors.ts";
import { registrationFromPut } from "../model/instance.ts";
import { defaultDefinition } from "../model/service.ts";
import { createSqliteStores } from "./sqlite.ts";

const [, , directory = "", round = "0"] = process.argv;
const { live, meta } = createSqliteStores({ directory, realm: "local" });
try {
  await live.open();
} catch (error) {
  console.error(describeError(error));
  process.exit(1);
}
if (!live.state().definitions.has("identity")) {
  const version = await meta.addDefinition("identity", { definition: defaultDefinition, published: undefined });
  await live.setDefinition("identity", version, undefined);
}
const write = async (worker: number): Promise<never> => {
  for (let count = 0; ; count += 1) {
    const instance = `host-${round}-${worker}-${count}`;
    await live.updateInstance("identity", instance, () => ({
      kind: "put",
      enabled: true,
      registration: registrationFromPut("identity", instance, { port: 5000 }),
    }));
    process.stdout.write(`identity/${instance}\n`);
  }
};
await Promise.all([write(1), write(2), write(3)]);
