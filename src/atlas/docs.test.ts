// docs/api.md is held to the code: the same error codes with the same statuses, and no operation left out.
import { expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { PROBLEM_STATUS } from "../core/lib/problem.ts";

const page = await readFile(join(import.meta.dir, "../../docs/api.md"), "utf8");

test("the table of error codes is the code's own list", () => {
  const rows = [...page.matchAll(/^\| `(\w+)` \| (\d{3}) \|/gm)].map(([, code, status]) => [code, Number(status)]);
  expect(rows).toEqual(Object.entries(PROBLEM_STATUS));
});

test("every kind of audit entry is named", async () => {
  const files = ["operations.ts", "settings-operations.ts", "port-operations.ts", "backup.ts"];
  const source = (await Promise.all(files.map((file) => readFile(join(import.meta.dir, file), "utf8")))).join("");
  const kinds = [...source.matchAll(/"((?:service|instance|agent|settings|port|registry)\.[a-z]+)"/g)].map(
    (match) => match[1],
  );
  const missing = [...new Set(kinds)].filter((kind) => !page.includes(`\`${kind}\``));
  expect([kinds.length > 5, missing]).toEqual([true, []]);
});
