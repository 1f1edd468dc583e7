// P10: from the command to the first 200 of the new service, without a network, git included. One run is `smartstack gen` and
// then `smartstack serve` of what it made, up to the first answer. `bun scripts/bench/gen.ts [RUNS]` prints one line of JSON; the
// baseline is what a run cannot do without: starting the binary four times (gen, test, serve, serve) and committing.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const BINARY = resolve(import.meta.dir, "../../dist/smartstack");
const [first = "10", inside] = process.argv.slice(2);
const runs = Number(first);

if (inside === undefined) {
  // loopback and nothing else
  const unshare = process.getuid?.() === 0 ? ["unshare", "-n"] : ["unshare", "-rn"];
  const script = 'PATH="$PATH:/usr/sbin:/sbin" ip link set lo up && exec "$@"';
  const again = Bun.spawn([...unshare, "sh", "-c", script, "sh", process.execPath, import.meta.path, first, "inside"], {
    stdout: "inherit",
    stderr: "inherit",
  });
  process.exit(await again.exited);
}

const directory = await mkdtemp(join(tmpdir(), "smartstack-bench-"));
const run = async (command: readonly string[]): Promise<number> => {
  const start = performance.now();
  const child = Bun.spawn([...command], { cwd: directory, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  if ((await child.exited) !== 0) throw new Error(`${command.join(" ")}: ${await new Response(child.stderr).text()}`);
  return performance.now() - start;
};

/** From starting `serve` to the first 200, in ms. */
async function serveUntilAnswer(name: string, port: number): Promise<number> {
  const start = performance.now();
  const log = join(directory, "log");
  const service = Bun.spawn([BINARY, "serve", name, "--port", String(port), "--log-dir", log], {
    cwd: directory,
    stdin: "ignore",
    stdout: "ignore",
    stderr: "ignore",
  });
  for (;;) {
    const status = await fetch(`http://127.0.0.1:${port}/teams`).then(
      (response) => response.status,
      () => 0,
    );
    if (status === 200) break;
    if (service.exitCode !== null) throw new Error(`serve ended with ${service.exitCode}`);
    await Bun.sleep(2);
  }
  const took = performance.now() - start;
  service.kill("SIGTERM");
  await service.exited;
  return took;
}

const median = (values: readonly number[]): number =>
  Math.round(values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0);

try {
  const [gens, serves, baselines]: [number[], number[], number[]] = [[], [], []];
  for (let index = 0; index < runs; index += 1) {
    const name = `bench-${index}`;
    gens.push(await run([BINARY, "gen", name]));
    serves.push(await serveUntilAnswer(name, 31_000 + index));
    const script = `for i in 1 2 3 4; do ${BINARY} --version >/dev/null; done; cp -r ${name} base-${index} && cd base-${index} &&
      rm -rf .git && git init -q && git add -A && git -c user.name=b -c user.email=b@localhost commit -qm b`;
    baselines.push(await run(["sh", "-c", script]));
  }
  const totals = gens.map((value, index) => value + (serves[index] ?? 0));
  const result = {
    bench: "gen",
    runs,
    toFirst200Ms: median(totals),
    worstMs: Math.round(Math.max(...totals)),
    genMs: median(gens),
    serveMs: median(serves),
    baselineMs: median(baselines),
    targetMs: 1_000,
  };
  console.log(JSON.stringify(result));
} finally {
  await rm(directory, { recursive: true, force: true });
}
