import { afterAll, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findBinary, maxconnOf, threadsOf } from "./binary.ts";

const directory = mkdtempSync(join(tmpdir(), "smartstack-binary-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function fake(name: string, output: string): string {
  const path = join(directory, name);
  writeFileSync(path, `#!/bin/sh\ncat <<'END'\n${output}\nEND\n`);
  chmodSync(path, 0o755);
  return path;
}

test("the HAProxy of this machine is found, with what it can do", async () => {
  expect(await findBinary()).toMatchObject({ version: expect.stringMatching(/^\d+\.\d+/), prometheus: true });
});

test.each([
  ["2.4.22", "haproxy_old"],
  ["1.8.0", "haproxy_old"],
  ["nothing", "haproxy_missing"],
])("%s is refused as %s", async (version, code) => {
  const path = fake(version, version === "nothing" ? "something else" : `HAProxy version ${version}-1 2023/01/01`);
  const failure = await findBinary(path).catch((error: unknown) => error);
  expect(failure).toMatchObject({ code, hint: expect.stringContaining("--haproxy") });
});

test("newer ones are fine, also without the exporter", async () => {
  const path = fake("new", "HAProxy version 3.2.1-dev 2026/01/01");
  expect(await findBinary(path)).toEqual({ path, version: "3.2.1-dev", prometheus: false });
});

test("a path with nothing behind it is told", async () => {
  const failure = await findBinary(join(directory, "none")).catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: "haproxy_missing" });
});

test("connections follow the limit of open files, with room for checks", () => {
  expect([64, 256, 1_024, 20_000, 1_048_576].map(maxconnOf)).toEqual([32, 102, 409, 8_000, 20_000]);
  for (const files of [256, 1_024, 20_000]) expect(maxconnOf(files) * 2).toBeLessThan(files * 0.81);
});

test("a large machine does not give all its processors to the router", () => {
  expect([1, 2, 64].map((processors) => threadsOf(processors))).toEqual([1, 2, 4]);
});
