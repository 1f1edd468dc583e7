import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { importService, locateService } from "./load.ts";

const directory = mkdtempSync(join(tmpdir(), "smartstack-load-"));
afterAll(() => rmSync(directory, { recursive: true }));

test("a mistake in the source is told with its place, its line and a mark under it", async () => {
  const file = join(directory, "broken.ts");
  writeFileSync(file, "export const a = 1;\n  export default f((x) => { g(x; });\n");
  const located = locateService(file, "broken");
  if (located.kind !== "entry") throw new Error("no entry");
  const fault: unknown = await importService(located).catch((error: unknown) => error);
  expect(fault).toMatchObject({
    code: "service_failed",
    hint: expect.stringMatching(/broken\.ts:2:32\n {2}export default f\(\(x\) => \{ g\(x; \}\);\n {31}\^$/),
  });
});
