// What gen writes type-checks: against our own sources, and in an editor, where smartstack.d.ts stands for them. And the
// sources really are what smartstack.d.ts says.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { findTemplate } from "./catalog.ts";
import { placeholders } from "./generate.ts";
import { writeFiles } from "./staging.ts";
import { render } from "./template.ts";

const REPOSITORY = resolve(import.meta.dir, "../..");
const MODULES = join(REPOSITORY, "node_modules");
const installed = { hono: [join(MODULES, "hono")], zod: [join(MODULES, "zod")], bun: [join(MODULES, "bun-types")] };

let directory = "";
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-types-"));
  for (const name of ["typescript", "minimal"])
    await writeFiles(join(directory, name), render(await findTemplate(name, "/"), placeholders("identity", 5004)));
});
afterAll(() => rm(directory, { recursive: true }));

/** What tsc says about generated files; nothing when all is well. */
async function check(name: string, config: object): Promise<string> {
  const path = join(directory, `${name}.json`);
  await writeFile(path, JSON.stringify(config));
  const tsc = Bun.spawn([process.execPath, "--bun", join(MODULES, ".bin/tsc"), "-p", path], {
    stdout: "pipe",
    cwd: directory,
  });
  const output = await new Response(tsc.stdout).text();
  await tsc.exited;
  // our own sources have a check of their own, under their own rules; indented lines belong to the one before
  return output.replaceAll(/^\.\..*\n(?: .*\n)*/gm, "");
}

test("the generated TypeScript fits our sources, under our own rules", async () => {
  const paths = {
    ...installed,
    smartstack: [join(REPOSITORY, "src/core/service/index.ts")],
    "smartstack/service": [join(REPOSITORY, "src/core/service/index.ts")],
    "smartstack/client": [join(REPOSITORY, "src/core/client/index.ts")],
  };
  const config = {
    extends: join(REPOSITORY, "tsconfig.json"),
    compilerOptions: { paths, typeRoots: [join(MODULES, "@types")] },
    include: [],
    files: ["typescript/service.test.ts", "minimal/service.test.ts"],
  };
  expect(await check("sources", config)).toBe("");
}, 30_000);

const inEditor = (files: readonly string[], paths: object) => ({
  extends: "./typescript/tsconfig.json",
  compilerOptions: { paths, typeRoots: [join(MODULES, "@types")] },
  include: [],
  files: ["typescript/smartstack.d.ts", ...files],
});

test("an editor that knows hono and zod finds no fault with a generated project", async () => {
  const wrong = `import { smartService } from "smartstack";
export default smartService("x", { defaults: { SIZE: 1 } }, (app) => {
  app.get("/:id", ({ params, config }) => [params.id, config.SIZE.toFixed(), params.nothing]);
});
`;
  await writeFile(join(directory, "typescript/wrong.ts"), wrong);
  expect(await check("editor", inEditor(["typescript/service.test.ts"], installed))).toBe("");
  // and it does find one, so the types are not merely `any`
  expect(await check("wrong", inEditor(["typescript/wrong.ts"], installed))).toMatch(
    /^typescript\/wrong\.ts\(3,85\): error TS2339: Property 'nothing'.*\n$/,
  );
}, 30_000);

test("smartstack.d.ts promises nothing that our sources do not keep", async () => {
  await writeFile(
    join(directory, "typescript/kept.ts"),
    `import * as service from "${REPOSITORY}/src/core/service/index.ts";
import * as client from "${REPOSITORY}/src/core/client/index.ts";
// \`api\` is a client, and only our own modules can make one: what it lacks in smartstack.d.ts it has all the same
const testing = { ...service, testService: (tested: unknown, options?: object) => service.testService(tested, options) };
export const kept: [typeof import("smartstack"), typeof import("smartstack/service"), typeof import("smartstack/client")] =
  [service, testing, client];
`,
  );
  expect(await check("kept", inEditor(["typescript/kept.ts"], installed))).toBe("");
}, 30_000);
