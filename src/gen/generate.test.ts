// Whole runs, with a stand-in for this program: what happens when tests fail, a service does not start, the user interrupts.
// The real program, and real kills, are in e2e/gen.e2e.ts.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createAtlasClient } from "../core/api/atlas-client.ts";
import { systemClock } from "../core/lib/clock.ts";
import { Fault } from "../core/lib/errors.ts";
import { generate, type GenConfig, type GenDeps } from "./generate.ts";
import { freePort } from "../e2e/process.ts";

let directory = "";
let printed: string[] = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-generate-"));
  printed = [];
});
afterEach(() => rm(directory, { recursive: true }));

/** `smartstack test DIR` and `smartstack serve DIR --port N …`, as a script. */
type StandIn = { readonly test?: string; readonly serve?: string };
const PASSES = "console.log(' 6 pass\\n 0 fail');";
const SERVES = `
  const port = Number(process.argv[process.argv.indexOf("--port") + 1]);
  const server = Bun.serve({ port, hostname: "127.0.0.1", fetch: () => new Response("", { status: STATUS }) });
  process.on("SIGTERM", () => { server.stop(true); process.exit(0); });`;
const serving = (status: number): string => SERVES.replace("STATUS", String(status));

const run = async (
  config: Partial<GenConfig> = {},
  standIn: StandIn = {},
  deps: Partial<GenDeps> = {},
): Promise<void> => {
  const script = join(directory, ".stand-in.ts");
  await writeFile(
    script,
    `if (process.argv[2] === "test") { ${standIn.test ?? PASSES} } else { ${standIn.serve ?? serving(200)} }`,
  );
  const full: GenConfig = {
    name: "identity",
    directory: join(directory, "identity"),
    workingDirectory: directory,
    template: "typescript",
    dryRun: false,
    force: false,
    git: false,
    expectAtlas: false,
    ...config,
  };
  await generate(full, {
    atlas: createAtlasClient({ urls: [`http://127.0.0.1:${await freePort()}`] }),
    clock: systemClock,
    program: [process.execPath, script],
    environment: process.env,
    signal: new AbortController().signal,
    print: (text) => printed.push(text),
    ...deps,
  });
};
const failure = async (work: Promise<void>): Promise<Fault> => {
  try {
    await work;
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
  throw new Error("it did not fail");
};
/** A process that ended counts as ended, also while nobody has asked for its status yet (a zombie). */
const lives = async (pid: number): Promise<boolean> => {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return stat !== "" && !/\) [ZX] /.test(stat);
};
const left = async (): Promise<readonly string[]> =>
  (await readdir(directory)).filter((name) => name !== ".stand-in.ts").sort();

test("the configuration, the steps with their results, and what to type next are printed", async () => {
  await run({ name: "my-awesome-service", directory: join(directory, "my-awesome-service") });
  const text = printed.join("\n").replaceAll(/\d+ ms/g, "N ms");
  expect(text).toMatch(
    /^ {2}service my-awesome-service · package my-awesome-service · port 5\d{3} \(free here, no Atlas\)/,
  );
  expect(text).toContain(" · ./my-awesome-service · template typescript\n");
  expect(text).toMatch(/ {2}1 generate +\d+ files +N ms\n {2}2 test +6 passed +N ms\n {2}3 boot +\/readyz 200 +N ms\n/);
  expect(text).toMatch(/All done in \d+\.\d\d s\.\nNext: {2}smartstack serve my-awesome-service$/);
  expect(await left()).toEqual(["my-awesome-service"]);
});

test("tests that fail leave nothing, and their output is the hint", async () => {
  const fault = await failure(run({}, { test: "console.log('expected 1'); process.exit(1);" }));
  expect(fault.message).toBe("step 2, test: the generated tests failed (status 1)");
  expect(fault.hint).toContain("expected 1");
  expect(printed.at(-1)).toBe("Nothing was changed.");
  expect(await left()).toEqual([]);
});

test("a service that ends at once, is never ready, or ends badly leaves nothing", async () => {
  const dies = await failure(run({}, { serve: "console.error('no module x'); process.exit(3);" }));
  expect(dies.message).toBe("step 3, boot: the service did not answer (status 3)");
  expect(dies.hint).toContain("no module x");
  const stumbles = await failure(run({}, { serve: serving(200).replace("process.exit(0)", "process.exit(7)") }));
  expect(stumbles.message).toBe("step 3, boot: the service did not end well (status 7)");
  const unready = await failure(run({}, { serve: `setTimeout(() => process.exit(1), 300); ${serving(503)}` }));
  expect(unready.message).toBe("step 3, boot: /readyz answers 503");
  expect(await left()).toEqual([]);
});

test("an interrupt ends the child and leaves nothing", async () => {
  const interrupt = new AbortController();
  const pidFile = join(directory, ".pid");
  const hangs = `require("fs").writeFileSync(${JSON.stringify(pidFile)}, String(process.pid)); setInterval(() => {}, 1000);`;
  const work = failure(run({}, { test: hangs }, { signal: interrupt.signal }));
  while (!(await Bun.file(pidFile).exists())) await Bun.sleep(5);
  interrupt.abort(new Fault({ code: "interrupted", message: "interrupted" }));
  expect((await work).code).toBe("interrupted");
  expect(await lives(Number(await readFile(pidFile, "utf8")))).toBe(false);
  expect((await left()).filter((name) => name !== ".pid")).toEqual([]);
});

test("a directory that is not empty is untouched without --force", async () => {
  await mkdir(join(directory, "identity"));
  await writeFile(join(directory, "identity/mine"), "1");
  const fault = await failure(run());
  expect(fault.code).toBe("exists");
  expect(fault.hint).toContain("--force");
  expect(await readdir(join(directory, "identity"))).toEqual(["mine"]);
  expect(printed).toEqual([]);
});

test("with --force only generated files change, after the diff was shown", async () => {
  await run();
  const project = join(directory, "identity");
  const yaml = await readFile(join(project, "smartstack.yaml"), "utf8");
  await writeFile(join(project, "service.ts"), "// mine\n");
  await writeFile(join(project, "mine.ts"), "// mine, too\n");
  await rm(join(project, "README.md"));
  printed = [];
  await run({ force: true });
  expect(printed.join("\n")).toContain("-// mine\n");
  expect(printed.join("\n")).toContain("+++ b/README.md");
  expect(printed.findIndex((text) => text.includes("-// mine"))).toBeLessThan(
    printed.findIndex((text) => text.includes("1 generate")),
  );
  expect(await readFile(join(project, "service.ts"), "utf8")).toContain("smartService");
  expect(await readFile(join(project, "mine.ts"), "utf8")).toBe("// mine, too\n");
  // its port, too, stays
  expect(await readFile(join(project, "smartstack.yaml"), "utf8")).toBe(yaml);
  expect(await left()).toEqual(["identity"]);
});

test("with --force and failing tests an existing project stays as it was", async () => {
  await run();
  const path = join(directory, "identity/service.ts");
  await writeFile(path, "// mine\n");
  await failure(run({ force: true }, { test: "process.exit(1);" }));
  expect(await readFile(path, "utf8")).toBe("// mine\n");
});

test("a dry run prints tree and diff and writes nothing", async () => {
  await run({ dryRun: true });
  const text = printed.join("\n");
  expect(text).toContain("./identity/\n├── .ci/\n│   └── run\n");
  expect(text).toContain('+export default smartService("identity"');
  expect(await left()).toEqual([]);
});

test("a bad name and an unknown template are usage errors before anything happens", async () => {
  expect((await failure(run({ name: "My Service" }))).code).toBe("usage");
  expect((await failure(run({ template: "cobol" }))).hint).toContain("typescript");
  expect(printed).toEqual([]);
  expect(await left()).toEqual([]);
});

test("a name that Atlas knows is refused, unless forced", async () => {
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: () => Response.json({ service: "identity", port: 6001 }),
  });
  const atlas = createAtlasClient({ urls: [`http://127.0.0.1:${server.port}`] });
  const fault = await failure(run({}, {}, { atlas }));
  expect(fault.code).toBe("taken");
  expect(await left()).toEqual([]);
  await run({ force: true }, {}, { atlas });
  expect(printed.join("\n")).toContain("note: Atlas knows a service identity already");
  await server.stop(true);
});

test("a link that leads nowhere is refused before anything is made", async () => {
  await symlink(join(directory, "nowhere"), join(directory, "identity"));
  const { code, message } = await failure(run());
  expect([code, message]).toEqual(["exists", `${join(directory, "identity")} is not a directory`]);
  expect(printed).toEqual([]);
});

test("a run that replaced some files does not say that nothing was changed", async () => {
  const target = join(directory, "identity");
  await run();
  await writeFile(join(target, "README.md"), "mine");
  const service = JSON.stringify(join(target, "service.ts"));
  await writeFile(join(target, "service.ts"), "mine");
  printed = [];
  // a directory takes its place while the run is on its way
  const meanwhile = `const fs = require("node:fs"); fs.rmSync(${service}); fs.mkdirSync(${service});`;
  const { code, message } = await failure(run({ force: true }, { test: meanwhile + PASSES }));
  expect(code).toBe("unwritable");
  expect(message).toStartWith("service.ts cannot be replaced; 1 of 2 files were");
  expect(printed).not.toContain("Nothing was changed.");
});
