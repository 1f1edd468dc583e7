// docs/operations.md is run as it is printed: the same commands in the same order, against a real Atlas, sidecar and HAProxy.
import { expect } from "bun:test";
import { mkdtemp, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BINARY, eventually, flags, scenario } from "./harness.ts";

/** The `$ command` lines of the page's console blocks, each with the lines under it. */
async function readExamples(): Promise<readonly { readonly command: string; readonly output: string }[]> {
  const page = await readFile(join(import.meta.dir, "../../docs/operations.md"), "utf8");
  return [...page.matchAll(/```console\n(.*?)```/gs)].flatMap(([, block = ""]) =>
    block
      .split(/^\$ /m)
      .slice(1)
      .map((example) => {
        const [command = "", ...output] = example.trimEnd().split("\n");
        return { command, output: output.join("\n") };
      }),
  );
}

/** What differs from run to run, made the same; so are the widths of columns. */
const normal = (output: string): string =>
  output
    .trim()
    .replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ/g, "TIME")
    .replaceAll(/\b\d+ (ms|s)\b/g, "N $1")
    .replaceAll(/revision \d+/g, "revision N")
    .replaceAll(/^(host001 +\S+ +)\d+( +0)$/gm, "$1N$2")
    .replaceAll(/ +/g, " ")
    .replaceAll(/ $/gm, "");

const APP = `Bun.serve({ port: Number(process.argv[2]), hostname: "127.0.0.1", fetch: () => new Response("well") });`;

scenario("every example of docs/operations.md prints what the page says", async (world) => {
  const [atlasPort, bind, admin] = [await world.port(), await world.port(), await world.port()];
  const atlas = `http://127.0.0.1:${atlasPort}`;
  const env = { ...process.env, SMARTSTACK_ATLAS: atlas, SMARTSTACK_ADMIN: `127.0.0.1:${admin}` } as Record<
    string,
    string
  >;
  const smartstack = async (...words: readonly string[]): Promise<void> => {
    const { code, stderr } = await world.run([BINARY, ...words], { env });
    expect([words.join(" "), code, stderr]).toEqual([words.join(" "), 0, ""]);
  };
  world.spawn([
    BINARY,
    "atlas",
    "--realm",
    "prod",
    ...flags({ listen: `127.0.0.1:${atlasPort}`, "data-dir": "atlas" }),
  ]);
  await eventually("Atlas is ready", async () => expect((await fetch(`${atlas}/readyz`)).status).toBe(200));
  const sidecar = {
    host: "host001",
    bind: `127.0.0.1:${bind}`,
    admin: env.SMARTSTACK_ADMIN ?? "",
    "state-dir": "state",
  };
  world.spawn([BINARY, "sidecar", "--realm", "prod", "--stop-haproxy", ...flags({ atlas, ...sidecar })]);
  await eventually("the sidecar is ready", async () =>
    expect((await fetch(`http://127.0.0.1:${admin}/readyz`)).status).toBe(200),
  );
  await writeFile(join(world.directory, "app.ts"), APP);
  await smartstack("define", "identity", "owner=core", "--wait");
  for (const host of ["host001", "host002"]) {
    const port = String(await world.port());
    world.spawn([BINARY, "app.ts", port], { env: { ...env, BUN_BE_BUN: "1" }, name: host });
    await smartstack("register", "identity", `${host}:5004`, "--address", "127.0.0.1", "--port", port, "--wait");
  }
  await eventually("both were checked", async () => {
    const { stdout } = await world.run([BINARY, "why", "identity"], { env });
    expect(stdout.match(/UP +check 200/g)).toHaveLength(2);
  });

  const examples = await readExamples();
  expect(examples.length).toBeGreaterThan(5);
  const path = await mkdtemp(join(world.directory, "bin-"));
  await symlink(BINARY, join(path, "smartstack"));
  for (const { command, output } of examples) {
    const { stdout } = await world.run(["bash", "-c", command], { env: { ...env, PATH: `${path}:${env.PATH ?? ""}` } });
    expect([command, normal(stdout)]).toEqual([command, normal(output)]);
  }
});
