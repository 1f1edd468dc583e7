import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { ErrorKind } from "./error.ts";

const root = resolve(import.meta.dir, "../../..");
const page = readFileSync(join(root, "docs/client.md"), "utf8");

test("every test that docs/client.md names for a claim exists", () => {
  const files = [
    ...readdirSync(import.meta.dir)
      .filter((name) => name.endsWith(".test.ts") && name !== "docs.test.ts")
      .map((name) => join(import.meta.dir, name)),
    join(root, "src/e2e/client.e2e.ts"),
  ];
  const tests = files.map((file) => readFileSync(file, "utf8")).join("\n");
  const named = Array.from(page.matchAll(/^\d+\. `(.+)`$/gm), ([, name]) => name ?? "");
  expect(named).toHaveLength(13);
  expect(named.filter((name) => !tests.includes(`"${name}"`))).toEqual([]);
});

test("docs/client.md names every kind of error, and no other", () => {
  // a record, so that a new kind cannot be forgotten here
  const kinds: Record<ErrorKind, true> = {
    invalid_request: true,
    hook_failed: true,
    router_unreachable: true,
    connect: true,
    connection: true,
    timeout: true,
    aborted: true,
    status: true,
    unknown_service: true,
    no_instance: true,
    circuit_open: true,
    bulkhead_full: true,
    redirect: true,
    response_too_large: true,
    bad_answer: true,
  };
  const row = /^\| `kind` \| (.+) \|$/m.exec(page)?.[1] ?? "";
  const named = Array.from(row.matchAll(/`([a-z_]+)`/g), ([, kind]) => kind ?? "");
  expect(named.sort()).toEqual(Object.keys(kinds).sort());
});
