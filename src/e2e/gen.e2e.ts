// `smartstack gen` as it meets a machine: the compiled binary alone, no network, no Bun or Node, no git or no identity, killed
// at any moment, run fifty times at once.
import { expect } from "bun:test";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, realpath, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BINARY, eventually, type Finished, scenario, type SpawnOptions, type World } from "./harness.ts";

/** A machine with these programs and nothing else, and a home that git knows nobody in. */
async function bareMachine(world: World, programs: readonly string[]): Promise<Record<string, string>> {
  const bin = join(world.directory, ".bin");
  const home = join(world.directory, ".home");
  await mkdir(bin, { recursive: true });
  await mkdir(home, { recursive: true });
  for (const program of programs) {
    const path = Bun.which(program);
    if (path === null) throw new Error(`this test needs ${program} on PATH`);
    await symlink(await realpath(path), join(bin, program));
  }
  return { PATH: bin, HOME: home, GIT_CONFIG_NOSYSTEM: "1", GIT_CONFIG_GLOBAL: join(home, ".gitconfig") };
}

/** In a network namespace of its own, in which there is loopback and nothing else. */
function withoutNetwork(command: readonly string[]): readonly string[] {
  const unshare = process.getuid?.() === 0 ? ["unshare", "-n"] : ["unshare", "-rn"];
  return [...unshare, "sh", "-c", 'PATH="$PATH:/usr/sbin:/sbin" ip link set lo up && exec "$@"', "sh", ...command];
}

const gen = (world: World, args: readonly string[], options: SpawnOptions = {}): Promise<Finished> =>
  world.run([BINARY, "gen", ...args, "--atlas", "http://127.0.0.1:9"], options);

/** What lies in the scenario's directory, apart from the machine's own. */
const left = async (world: World): Promise<readonly string[]> =>
  (await readdir(world.directory)).filter((name) => name !== ".bin" && name !== ".home").sort();

const git = (project: string, ...args: string[]): string =>
  Bun.spawnSync(["git", "-C", project, ...args], { stderr: "pipe" })
    .stdout.toString()
    .trim();

/** Everything generated is there, and committed. */
async function expectComplete(project: string): Promise<void> {
  const files = git(project, "ls-files").split("\n");
  expect(files).toContain("smartstack.yaml");
  expect(files).toContain("service.test.ts");
  expect(git(project, "status", "--porcelain")).toBe("");
  expect(git(project, "log", "--format=%s")).toBe(`Generate ${(await nameOf(project)) ?? ""}`);
}
const nameOf = async (project: string): Promise<string | undefined> =>
  /^name: (.*)$/m.exec(await readFile(join(project, "smartstack.yaml"), "utf8"))?.[1];
const portOf = async (project: string): Promise<number> =>
  Number(/^port: (.*)$/m.exec(await readFile(join(project, "smartstack.yaml"), "utf8"))?.[1]);

scenario("without a network, Bun or Node, a service is made, tested, started and committed", async (world) => {
  const env = await bareMachine(world, ["git", "sh"]);
  const command = [BINARY, "gen", "my-awesome-service"];
  const made = await world.run(withoutNetwork(["env", `PATH=${env.PATH}`, ...command]), {
    env: { ...env, PATH: process.env.PATH ?? "" },
  });
  expect(made.stderr).toBe("");
  expect(made.code).toBe(0);
  expect(made.stdout).toMatch(
    /^ {2}service my-awesome-service · package my-awesome-service · port 5\d{3} \(free here, no Atlas\)/,
  );
  expect(made.stdout).toMatch(
    / 1 generate +11 files .*\n +2 test +6 passed .*\n +3 boot +\/readyz 200 .*\n +4 git +first commit/,
  );
  expect(made.stdout).toContain("Next:  smartstack serve my-awesome-service\n");
  expect(await left(world)).toEqual(["my-awesome-service"]);
  await expectComplete(join(world.directory, "my-awesome-service"));
  // git knew nobody: said, and no failure
  expect(made.stdout).toContain("user.name");
});

scenario("every template's output runs under serve, answers, and passes its own tests", async (world) => {
  for (const [template, path] of [
    ["typescript", "/teams"],
    ["minimal", "/"],
    ["command", "/"],
  ] as const) {
    const name = `of-${template}`;
    const made = await gen(world, [name, "--template", template]);
    expect(made.stderr).toBe("");
    expect(made.stdout).toMatch(/2 test +\d+ passed/);
    const port = await world.port();
    const service = world.spawn([
      BINARY,
      "serve",
      name,
      "--port",
      String(port),
      "--log-dir",
      join(world.directory, ".bin"),
    ]);
    const response = await eventually(`${name} answers`, () => fetch(`http://127.0.0.1:${port}${path}`));
    expect(response.status).toBe(200);
    await response.text();
    expect(await service.stop()).toBe(0);
  }
});

scenario("the generated CI script runs the tests with the binary alone", async (world) => {
  await gen(world, ["identity"]);
  const env = await bareMachine(world, ["dirname", "sh"]);
  const ci = await world.run([join(world.directory, "identity/.ci/run")], { env: { ...env, SMARTSTACK: BINARY } });
  expect(ci.stdout + ci.stderr).toContain("6 pass");
  expect(ci.code).toBe(0);
});

scenario("without git everything else is done, and the step says why", async (world) => {
  const made = await gen(world, ["identity"], { env: await bareMachine(world, ["sh"]) });
  expect(made.code).toBe(0);
  expect(made.stdout).toMatch(/4 git +left out .*\n +git is not on PATH/);
  expect(existsSync(join(world.directory, "identity/.git"))).toBe(false);
});

scenario("without Python the command template is written, and the steps say what is missing", async (world) => {
  const made = await gen(world, ["reports", "--template", "command"], { env: await bareMachine(world, ["git"]) });
  expect(made.code).toBe(0);
  expect(made.stdout).toMatch(/2 test +left out .*\n +python3 is not on PATH/);
  expect(existsSync(join(world.directory, "reports/service.py"))).toBe(true);
});

scenario(
  "SIGKILL at any step leaves a complete project or none, no process, and the next run cleans up",
  async (world) => {
    const project = join(world.directory, "identity");
    // five steps, each a moment after it began, which is when the line before it came out; and fifteen moments in between
    const lines = ["service identity", "1 generate", "2 test", "3 boot", "4 git"];
    const moments: readonly (string | number)[] = [...lines, ...Array.from({ length: 15 }, (_, index) => index * 30)];
    for (const moment of moments) {
      const run = world.spawn([BINARY, "gen", "identity", "--atlas", "http://127.0.0.1:9"]);
      if (typeof moment === "number") await Bun.sleep(moment);
      else await eventually(`gen printed "${moment}"`, () => expect(run.output()).toContain(moment));
      await Bun.sleep(Math.random() * 15);
      run.signal("SIGKILL");
      await run.exited;
      await eventually(`nothing of the run killed at ${moment} lives`, async () =>
        expect(await processesIn(world.directory)).toEqual([]),
      );
      const entries = await left(world);
      expect(entries.filter((name) => name !== "identity" && !name.startsWith(".smartstack-gen-"))).toEqual([]);
      if (entries.includes("identity")) {
        await expectComplete(project);
        Bun.spawnSync(["rm", "-rf", project]);
      }
    }
    expect((await gen(world, ["identity"])).code).toBe(0);
    expect(await left(world)).toEqual(["identity"]);
  },
  120_000,
);

/** Command lines of processes that were told of a directory. A zombie, which is over, has none. */
async function processesIn(directory: string): Promise<readonly string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  // one that ends meanwhile is none
  const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")));
  return lines.filter((line) => line.includes(directory)).map((line) => line.replaceAll("\0", " "));
}

scenario("an interrupt undoes everything", async (world) => {
  const run = world.spawn([BINARY, "gen", "identity", "--dir", "made/for/it", "--atlas", "http://127.0.0.1:9"]);
  await eventually("the tests run", () => expect(run.output()).toContain("1 generate"));
  run.signal("SIGINT");
  expect(await run.exited).toBe(1);
  expect(run.output()).toContain("interrupted");
  expect(await left(world)).toEqual([]);
});

scenario(
  "a second run changes nothing; --force changes generated files only, and shows the diff before",
  async (world) => {
    await gen(world, ["identity"]);
    const project = join(world.directory, "identity");
    await writeFile(join(project, "service.ts"), "// mine\n");
    await writeFile(join(project, "notes.md"), "mine\n");
    const second = await gen(world, ["identity"]);
    expect(second.code).toBe(1);
    expect(second.stderr).toContain("./identity is not empty; it is untouched");
    expect(await readFile(join(project, "service.ts"), "utf8")).toBe("// mine\n");

    const dry = await gen(world, ["identity", "--dry-run"]);
    expect(dry.stdout).toContain("-// mine");
    expect(await readFile(join(project, "service.ts"), "utf8")).toBe("// mine\n");

    const forced = await gen(world, ["identity", "--force"]);
    expect(forced.code).toBe(0);
    expect(forced.stdout.indexOf("-// mine")).toBeGreaterThan(0);
    expect(forced.stdout.indexOf("-// mine")).toBeLessThan(forced.stdout.indexOf("1 generate"));
    expect(await readFile(join(project, "service.ts"), "utf8")).toContain("smartService");
    expect(git(project, "status", "--porcelain")).toBe("?? notes.md");
  },
);

scenario(
  "--update merges a newer template into a project that its owners changed, and has nothing to do twice",
  async (world) => {
    await gen(world, ["identity"]);
    const project = join(world.directory, "identity");
    const identity = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com"];
    const path = join(project, "README.md");
    const readme = await readFile(path, "utf8");
    // as if an older template had made it
    await writeFile(path, readme.replace("Nothing needs installing", "Install everything"));
    git(project, ...identity, "commit", "--all", "--amend", "--no-edit");
    await writeFile(path, (await readFile(path, "utf8")).replace("# identity", "# Identity, ours"));
    git(project, ...identity, "commit", "--all", "--message", "Make it ours");

    const updated = await world.run([BINARY, "gen", "--update"], { cwd: project });
    expect(updated.stderr).toBe("");
    expect(updated.code).toBe(0);
    expect(updated.stdout).toMatch(/2 merge +merged .*\n +3 test +6 passed .*\n +4 boot +\/readyz 200/);
    expect(await readFile(path, "utf8")).toBe(readme.replace("# identity", "# Identity, ours"));
    const again = await world.run([BINARY, "gen", "--update"], { cwd: project });
    expect(again.code).toBe(0);
    expect(again.stdout).toContain("nothing new");
  },
);

scenario("bad input is named, with exit code 2, and leaves nothing", async (world) => {
  for (const [args, message] of [
    [["My Service"], "Did you mean my-service?"],
    [["atlas"], "reserved"],
    [["../../etc/x"], "not a service name"],
    [[], "missing NAME"],
    [["identity", "--update"], "--update takes no NAME"],
    [["identity", "--template", "cobol"], "Templates are"],
    [["identity", "--port", "70000"], "port"],
    [["identity", "--frobnicate"], "unknown flag --frobnicate"],
  ] as const) {
    const refused = await gen(world, args);
    expect(refused.stderr).toContain(message);
    expect(refused.code).toBe(2);
  }
  expect(await left(world)).toEqual([]);
});

scenario("a place that cannot be written, and a full disk, leave nothing and name what failed", async (world) => {
  const unwritable = await gen(world, ["identity", "--dir", "/proc/identity"]);
  expect(unwritable.code).toBe(1);
  expect(unwritable.stderr).toContain("cannot write in /proc");

  const disk = join(world.directory, "disk");
  await mkdir(disk);
  const unshare = process.getuid?.() === 0 ? ["unshare", "-m"] : ["unshare", "-rm"];
  const script = `mount -t tmpfs -o size=24k none ${disk} && cd ${disk} && ${BINARY} gen identity --atlas http://127.0.0.1:9; echo "code $?"; ls -A`;
  const full = await world.run([...unshare, "sh", "-c", script]);
  expect(full.stderr).toContain("step 1, generate");
  expect(full.stdout).toMatch(/code 1\n$/);
});

scenario("Atlas reserves the port, has it back when the run fails, and knows whose names are taken", async (world) => {
  const url = `http://127.0.0.1:${await world.port()}`;
  world.spawn([BINARY, "atlas", "--listen", new URL(url).host, "--data-dir", join(world.directory, ".home")]);
  const asJson = async (path: string, init?: RequestInit): Promise<unknown> =>
    (await fetch(`${url}${path}`, init)).json();
  await eventually("Atlas is ready", async () => expect((await fetch(`${url}/readyz`)).status).toBe(200));
  const withAtlas = (...args: string[]): Promise<Finished> => world.run([BINARY, "gen", ...args, "--atlas", url]);

  const made = await withAtlas("identity");
  expect(made.stdout).toContain("port 5000 (reserved in Atlas)");
  expect(await portOf(join(world.directory, "identity"))).toBe(5000);
  expect((await withAtlas("billing", "--dry-run")).stdout).toContain("port 5001 (free in Atlas)");
  expect(await asJson("/v1/ports")).toEqual([{ service: "identity", port: 5000 }]);

  const template = join(world.directory, ".bin");
  await mkdir(join(template, "files"), { recursive: true });
  await writeFile(
    join(template, "template.yaml"),
    'describe: fails\nrequires: [sh]\ntest: [sh, -c, "echo no luck; exit 1"]\n',
  );
  await writeFile(join(template, "files/smartstack.yaml"), "name: {{name}}\nport: {{port}}\ncommand: [sleep, '1']\n");
  const failed = await withAtlas("billing", "--template", template);
  expect(failed.code).toBe(1);
  expect(failed.stdout).toContain("port 5001 (reserved in Atlas)");
  expect(failed.stderr).toContain("step 2, test: the generated tests failed (status 1)\nno luck");
  expect(await asJson("/v1/ports")).toEqual([{ service: "identity", port: 5000 }]);

  await asJson("/v1/services/ads", { method: "PUT", headers: { "content-type": "application/json" }, body: "{}" });
  const taken = await withAtlas("ads");
  expect(taken.code).toBe(1);
  expect(taken.stderr).toContain("Atlas knows a service ads already");
  expect((await withAtlas("billing", "--port", "5000")).stderr).toContain(
    "port 5000 is reserved for identity in Atlas",
  );
  expect(await left(world)).toEqual(["identity"]);
});

scenario(
  "twenty runs at once get twenty ports",
  async (world) => {
    const names = Array.from({ length: 20 }, (_, index) => `service-${index}`);
    const runs = await Promise.all(names.map((name) => gen(world, [name, "--template", "minimal", "--no-git"])));
    expect(runs.filter(({ code }) => code !== 0)).toEqual([]);
    const ports = await Promise.all(names.map((name) => portOf(join(world.directory, name))));
    expect(new Set(ports).size).toBe(names.length);
    expect(await left(world)).toEqual([...names].sort());
  },
  180_000,
);
