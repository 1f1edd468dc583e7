import { expect, test } from "bun:test";
import { Fault } from "../core/lib/errors.ts";
import { SERVICE_NAME, serviceName } from "../core/model/names.ts";
import { checkName, RESERVED, suggestName } from "./name.ts";

const refusal = (name: string): Fault | undefined => {
  try {
    checkName(name);
    return undefined;
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
};

test("what the registry refuses is refused before anything is made", () => {
  for (const name of ["identity", "constructor", "a-b", "toString", "a".repeat(64)])
    expect([name, serviceName.safeParse(name).success]).toEqual([name, refusal(name) === undefined]);
});

test("a name that the registry takes is taken", () => {
  for (const name of ["identity", "my-awesome-service", "a", "v2", "a".repeat(63)])
    expect(refusal(name)).toBeUndefined();
});

test("a bad name is a usage error with a suggestion that would be taken", () => {
  const pairs: readonly (readonly [string, string])[] = [
    ["My Service", "my-service"],
    ["myService", "my-service"],
    ["my_service", "my-service"],
    ["Überweisung", "uberweisung"],
    ["3scale", "service-3scale"],
    ["-x-", "x"],
    ["identity-", "identity"],
    ["../../etc/passwd", "etc-passwd"],
    ["Atlas", "atlas-api"],
    ["x".repeat(80), "x".repeat(63)],
  ];
  for (const [bad, good] of pairs) {
    const fault = refusal(bad);
    expect(fault?.code).toBe("usage");
    expect(fault?.hint).toBe(`Did you mean ${good}?`);
    expect(refusal(good)).toBeUndefined();
  }
});

test("a name without a single letter or digit gets no suggestion", () => {
  expect(suggestName("¿?")).toBeUndefined();
  expect(refusal("¿?")?.hint).toBeUndefined();
});

test("every reserved name is a well-formed one, refused with another", () => {
  for (const name of RESERVED) {
    expect(SERVICE_NAME.test(name)).toBe(true);
    expect(refusal(name)?.message).toContain("reserved");
    expect(refusal(`${name}-api`)).toBeUndefined();
  }
});
