import { afterEach, describe, expect, test } from "bun:test";
import { ProblemFault } from "../core/lib/http.ts";
import { type Definition, definitionSchema } from "../core/model/service.ts";
import { ACTOR, createWorld, type World } from "./fixture.ts";

let world: World;
afterEach(() => world.dispose());

const tcp = (localPort: number, owner = ""): Definition =>
  definitionSchema.parse({ protocol: "tcp", localPort, owner });

describe("a port that another replica gives away at the same moment", () => {
  /** A world where, just before `service` is committed for the first time, another replica defines `other`. */
  async function raced(service: string, other: string, definition: Definition): Promise<World> {
    let late = true;
    return createWorld({
      stores: ({ live, meta }) => {
        const commit = live.setDefinition.bind(live);
        live.setDefinition = async (name, version, expected) => {
          if (name === service && (expected !== undefined) === (service === "known") && late) {
            late = false;
            const theirs = await meta.addDefinition(other, { definition, published: undefined });
            await commit(other, theirs, undefined);
          }
          return commit(name, version, expected);
        };
        return { live, meta };
      },
    });
  }

  const refusalOf = (write: Promise<unknown>): Promise<unknown> => write.catch((error: unknown) => error);

  test("is not two services' localPort: a new definition is taken back", async () => {
    world = await raced("new", "other", tcp(6379));
    const refusal = await refusalOf(world.operations.putService("new", tcp(6379), ACTOR));
    expect(refusal).toBeInstanceOf(ProblemFault);
    expect(String(refusal)).toContain("localPort 6379 belongs to other");
    expect([...world.registry.state().services.keys()]).toEqual(["other"]);
  });

  test("is not two services' localPort: a changed definition goes back to what it was", async () => {
    world = await raced("known", "other", tcp(6379));
    await world.operations.putService("known", tcp(6380, "ann"), ACTOR);
    expect(await refusalOf(world.operations.putService("known", tcp(6379, "bob"), ACTOR))).toBeInstanceOf(ProblemFault);
    expect(world.registry.state().services.get("known")).toEqual(tcp(6380, "ann"));
    expect(world.registry.state().services.get("other")?.localPort).toBe(6379);
  });

  test("is not reserved as well: the service gets the next", async () => {
    let late = true;
    world = await createWorld({
      stores: ({ live, meta }) => {
        const reserve = meta.reservePort.bind(meta);
        meta.reservePort = async (service, taken) => {
          const reserved = await reserve(service, taken);
          if (late) {
            late = false;
            const theirs = await meta.addDefinition("redis", { definition: tcp(reserved.port), published: undefined });
            await live.setDefinition("redis", theirs, undefined);
          }
          return reserved;
        };
        return { live, meta };
      },
    });
    // the queue waits a moment before it tries again
    const reservation = world.ports.reserve("identity", ACTOR);
    expect(await reservation).toMatchObject({ port: 5001, created: true });
    expect(await world.meta.ports()).toEqual([{ service: "identity", port: 5001 }]);
  });
});
