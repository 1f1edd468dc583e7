// What the tests at random do to Atlas.
import { definitionSchema } from "../core/model/service.ts";
import { ACTOR, type World } from "./fixture.ts";

const SERVICES = ["a", "b", "c"];

/** One write of any kind; a refusal is as good as another. */
export async function writeAtRandom(
  { operations }: World,
  pick: <T>(from: readonly T[]) => T,
  random: (below: number) => number,
): Promise<void> {
  const service = pick(SERVICES);
  const instance = pick(["x", "y", "z"]);
  const kind = random(10);
  if (kind < 4) await operations.putInstance(service, instance, { port: 1 + Math.floor(random(9)) }, ACTOR);
  else if (kind < 6) await operations.deleteInstance(service, instance, undefined, ACTOR);
  else if (kind < 8) await operations.patchInstance(service, instance, { enabled: random(2) < 1 }, ACTOR);
  else if (kind < 9) await operations.putService(service, definitionSchema.parse({ owner: pick(["o", "p"]) }), ACTOR);
  else await operations.deleteService(service, true, ACTOR);
}
