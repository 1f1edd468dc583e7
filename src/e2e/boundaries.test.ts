// The import rule (docs/architecture.md) is only worth what its lint catches: each line here plants a violation in a copy of
// the layout and expects oxlint to name it, and plants what is allowed and expects silence.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";

const ROOT = resolve(import.meta.dir, "../..");

type Plant = { readonly file: string; readonly imports: string };

const FORBIDDEN: readonly Plant[] = [
  { file: "src/core/lib/planted.ts", imports: "../model/planted.ts" },
  { file: "src/core/model/planted.ts", imports: "../registry/planted.ts" },
  { file: "src/core/model/planted.ts", imports: "../client/planted.ts" },
  { file: "src/core/model/planted.ts", imports: "../../atlas/planted.ts" },
  { file: "src/core/registry/planted.ts", imports: "../haproxy/planted.ts" },
  { file: "src/core/haproxy/planted.ts", imports: "../registry/planted.ts" },
  { file: "src/core/client/planted.ts", imports: "../service/planted.ts" },
  { file: "src/core/api/planted.ts", imports: "../client/planted.ts" },
  { file: "src/core/service/planted.ts", imports: "../haproxy/planted.ts" },
  { file: "src/core/service/planted.ts", imports: "../../serve/planted.ts" },
  { file: "src/core/haproxy/planted.ts", imports: "../../sidecar/planted.ts" },
  { file: "src/atlas/planted.ts", imports: "../sidecar/planted.ts" },
  { file: "src/sidecar/planted.ts", imports: "../atlas/planted.ts" },
  { file: "src/serve/planted.ts", imports: "../gen/planted.ts" },
  { file: "src/gen/planted.ts", imports: "../cli/planted.ts" },
  { file: "src/cli/planted.ts", imports: "../main.ts" },
  { file: "src/core/registry/sqlite.ts", imports: "@aws-sdk/client-dynamodb" },
  { file: "src/core/registry/dynamodb-planted.ts", imports: "node-zookeeper-client" },
  { file: "src/core/registry/dynamodb-planted.ts", imports: "../haproxy/planted.ts" },
  { file: "src/core/registry/zookeeper-planted.ts", imports: "@aws-sdk/client-dynamodb" },
  { file: "src/core/registry/zookeeper-planted.ts", imports: "../haproxy/planted.ts" },
  { file: "src/core/registry/planted.ts", imports: "node-zookeeper-client" },
  { file: "src/atlas/planted.ts", imports: "node-zookeeper-client" },
];

const ALLOWED: readonly Plant[] = [
  { file: "src/core/model/planted.ts", imports: "../lib/planted.ts" },
  { file: "src/core/registry/planted.ts", imports: "../model/planted.ts" },
  { file: "src/core/service/planted.ts", imports: "../client/planted.ts" },
  { file: "src/core/registry/dynamodb-planted.ts", imports: "@aws-sdk/client-dynamodb" },
  { file: "src/core/registry/zookeeper-planted.ts", imports: "node-zookeeper-client" },
  { file: "src/atlas/planted.ts", imports: "../core/registry/planted.ts" },
  { file: "src/cli/planted.ts", imports: "../atlas/planted.ts" },
];

let directory = "";

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-lint-"));
  await copyFile(join(ROOT, "oxlint.config.ts"), join(directory, "oxlint.config.ts"));
  await symlink(join(ROOT, "node_modules"), join(directory, "node_modules"));
});

afterAll(() => rm(directory, { recursive: true, force: true }));

/** The messages of the import rule for one planted file, with a planted read of the environment beside it. */
async function lint({ file, imports }: Plant): Promise<{ imports: string[]; environment: string[] }> {
  const path = join(directory, file);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, `import { planted } from "${imports}";\nexport const value = [planted, process.env.HOME];\n`);
  const child = Bun.spawn([process.execPath, "--bun", join(ROOT, "node_modules/.bin/oxlint"), "--format=json", file], {
    cwd: directory,
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, NODE_PATH: join(ROOT, "node_modules") },
  });
  const answer = await new Response(child.stdout).text();
  await rm(path);
  const { diagnostics } = JSON.parse(answer) as { diagnostics: { code: string; help?: string; message: string }[] };
  const of = (rule: string) =>
    diagnostics.filter(({ code }) => code.includes(rule)).map(({ message, help }) => `${message} ${help ?? ""}`);
  return { imports: of("no-restricted-imports"), environment: of("no-process-env") };
}

for (const plant of FORBIDDEN) {
  test(`${plant.file} may not import ${plant.imports}`, async () => {
    const found = await lint(plant);
    expect(found.imports).toHaveLength(1);
    // the message says why, not only that
    expect(found.imports[0]).toMatch(/only core|stands alone|is pure|is a library|never imports|nothing imports/);
  });
}

for (const plant of ALLOWED) {
  test(`${plant.file} may import ${plant.imports}`, async () => {
    expect((await lint(plant)).imports).toEqual([]);
  });
}

test("only the configuration, the libraries and tests may read the environment", async () => {
  const reader = async (file: string) => (await lint({ file, imports: "node:fs" })).environment.length;
  expect(await reader("src/atlas/planted.ts")).toBe(1);
  expect(await reader("src/core/lib/planted.ts")).toBe(1);
  expect(await reader("src/cli/config.ts")).toBe(0);
  expect(await reader("src/core/client/planted.ts")).toBe(0);
});
