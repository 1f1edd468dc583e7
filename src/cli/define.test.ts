import { describe, expect, test } from "bun:test";
import { definitionSchema } from "../core/model/service.ts";
import { parseAssignments } from "./assignments.ts";
import { edit } from "./define.ts";

const current = { ...definitionSchema.parse({ owner: "core", healthcheck: { path: "/up" } }) };
const edited = (...args: string[]): unknown => edit(current, parseAssignments(args), []);

describe("editing a definition", () => {
  test("changes what is said and keeps the rest, inside as well", () => {
    expect(edited("healthcheck.rise=5", "retries=0")).toEqual({
      ...current,
      retries: 0,
      healthcheck: { ...current.healthcheck, rise: 5 },
    });
  });

  test("reads each value in the type its key wants", () => {
    expect(edited("owner=123", "retries=4", 'datastores=["redis"]', 'split={"1.0": 99, "1.1": 1}')).toMatchObject({
      owner: "123",
      retries: 4,
      datastores: ["redis"],
      split: { "1.0": 99, "1.1": 1 },
    });
    expect(edited("owner=true", "description=")).toMatchObject({ owner: "true", description: "" });
  });

  test("takes keys back to their defaults", () => {
    const next = edit({ ...current, slowStartMs: 5 }, [], ["slowStartMs", "healthcheck.path"]);
    expect(definitionSchema.parse(next)).toEqual(definitionSchema.parse({ owner: "core" }));
  });

  test("edits that belong together are judged together", () => {
    expect(edited("localPort=6379", "protocol=tcp")).toMatchObject({ protocol: "tcp", localPort: 6379 });
    expect(() => edited("localPort=6379")).toThrow("localPort: only a service of protocol tcp has a localPort");
  });

  test("names every edit that makes no definition, and what was meant", () => {
    expect(() => edited("retries=many", "healthcheck.pth=/x", "blance=random")).toThrow(
      /retries: .*\n.*healthcheck\.pth: is no key of a definition, did you mean path\?|blance: is no key of a definition, did you mean balance\?/,
    );
    expect(() => edited("owner.name=x")).toThrow("owner: ");
  });

  test("leaves alone what a newer Atlas knows and nobody edits", () => {
    const newer = { ...current, colour: "red", healthcheck: { ...current.healthcheck, grace: 5 } };
    expect(edit(newer, parseAssignments(["owner=money"]), [])).toEqual({ ...newer, owner: "money" });
    expect(() => edit(newer, parseAssignments(["colour=blue"]), [])).toThrow("colour: is no key of a definition");
  });
});
