import { describe, expect, test } from "bun:test";
import { Fault } from "../core/lib/errors.ts";
import { parseManifest } from "./manifest.ts";

function refusal(text: string): string {
  try {
    parseManifest(text, "smartstack.yaml");
    return "accepted";
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    expect(error.code).toBe("config");
    return error.message;
  }
}

describe("smartstack.yaml", () => {
  test("needs a name only; a smart service is asked for its readiness", () => {
    const { name, run, port, definition } = parseManifest("name: identity\n", "smartstack.yaml");
    expect({ name, run, port }).toEqual({
      name: "identity",
      run: { kind: "entry", file: "service.ts" },
      port: undefined,
    });
    expect(definition.healthcheck).toEqual({ path: "/readyz", intervalMs: 2_000, timeoutMs: 1_000, rise: 2, fall: 3 });
  });

  test("names a command, which is asked for /healthcheck unless it says otherwise", () => {
    const command = parseManifest("name: billing\ncommand: [python3, app.py]\nport: 5010\n", "smartstack.yaml");
    expect(command).toMatchObject({
      run: { kind: "command", command: ["python3", "app.py"] },
      port: 5_010,
      definition: { healthcheck: { path: "/healthcheck" } },
    });
    const path = parseManifest("name: billing\ncommand: [app]\nhealthcheck: /up\n", "smartstack.yaml");
    expect(path.definition.healthcheck.path).toBe("/up");
    const whole = parseManifest("name: billing\nhealthcheck:\n  intervalMs: 500\n", "smartstack.yaml");
    expect(whole.definition.healthcheck).toMatchObject({ path: "/readyz", intervalMs: 500 });
  });

  test("publishes what it says about the service", () => {
    const text =
      "name: identity\nowner: core\ndescription: teams\ndatastores: [redis-1]\nretries: 1\ntimeouts: { requestMs: 5000 }\n";
    expect(parseManifest(text, "smartstack.yaml").definition).toMatchObject({
      owner: "core",
      description: "teams",
      datastores: ["redis-1"],
      retries: 1,
      timeouts: { requestMs: 5_000, connectMs: 300 },
    });
  });

  test("is refused with the line of everything that is wrong", () => {
    expect(refusal("name: Identity\nowner: core\nprot: 5000\nhealthcheck:\n  path: /x\n  rise: many\n")).toBe(
      [
        "smartstack.yaml:1: name: a service name is 1 to 63 of a–z, 0–9 and '-', and begins with a letter",
        "smartstack.yaml:6: healthcheck.rise: must be a number, not text",
        "smartstack.yaml:3: prot: is not a known field",
      ].join("\n"),
    );
    expect(refusal("owner: core\n")).toBe("smartstack.yaml:1: name: is missing; it must be text");
    expect(refusal("name: a\nentry: a.ts\ncommand: [b]\n")).toBe(
      "smartstack.yaml:3: command: a service has an entry or a command, not both",
    );
    expect(refusal("name: a\nsplit: { v1: 100 }\n")).toBe("smartstack.yaml:2: split: is not a known field");
  });

  test("that is no YAML, or no keys and values, says where", () => {
    expect(refusal("name: [\n")).toStartWith("smartstack.yaml:2: ");
    expect(refusal("- a\n- b\n")).toBe("smartstack.yaml:1: must hold keys and values, one a line");
    expect(refusal("")).toBe("smartstack.yaml:1: name: is missing; it must be text");
  });
});
