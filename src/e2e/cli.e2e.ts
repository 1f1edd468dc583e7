// The command line of the compiled binary: what it answers, how it fails, and what must not be able to touch it.
import { expect } from "bun:test";
import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BINARY, eventually, scenario, type Spawned, type World } from "./harness.ts";

type Atlas = { readonly url: string; readonly process: Spawned };

async function startAtlas(world: World, env: Readonly<Record<string, string>> = {}): Promise<Atlas> {
  const url = `http://127.0.0.1:${await world.port()}`;
  const command = [BINARY, "atlas", "--listen", url.slice(7), "--data-dir", join(world.directory, "atlas")];
  const process = world.spawn(command, { name: "atlas", env });
  await eventually("Atlas is ready", async () => expect((await fetch(`${url}/readyz`)).status).toBe(200));
  return { url, process };
}

scenario("help, version and exit codes", async (world) => {
  const version = await world.run([BINARY, "--version"]);
  expect(version).toEqual({ code: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/), stderr: "" });
  const help = await world.run([BINARY, "--help"]);
  expect(help).toMatchObject({ code: 0, stderr: "" });
  for (const name of ["atlas", "serve", "gen", "status", "why", "disable", "settings", "print", "completion"])
    expect(help.stdout).toMatch(new RegExp(`^  ${name} +\\S`, "m"));
  expect(await world.run([BINARY, "help"])).toEqual(help);
  expect(await world.run([BINARY])).toEqual({ code: 2, stdout: "", stderr: help.stdout });
  const command = await world.run([BINARY, "disable", "--help"]);
  expect(command).toMatchObject({ code: 0, stdout: expect.stringContaining("--wait") });

  const mistakes: readonly [string[], string][] = [
    [["stauts"], "Did you mean status?"],
    [["status", "--jsn"], "unknown flag --jsn, did you mean --json?"],
    [["status", "--atlas"], "argument missing"],
    [["status", "--atlas", "nonsense"], "atlas (flag --atlas): must be a URL"],
    [["disable", "identity"], "missing INSTANCE"],
    [["completion", "ksh"], "one of bash, zsh, fish"],
    [["status", "--config", "/nowhere"], "/nowhere cannot be read"],
  ];
  for (const [argv, message] of mistakes)
    expect([argv, await world.run([BINARY, ...argv])]).toEqual([
      argv,
      { code: 2, stdout: "", stderr: expect.stringContaining(message) },
    ]);
});

scenario("every bad value is told with where it came from, and nothing is started", async (world) => {
  const port = await world.port();
  await writeFile(join(world.directory, "atlas.yaml"), `listen: 127.0.0.1:${port}\nlog-level: loud\ndatadir: x\n`);
  const { code, stdout, stderr } = await world.run(
    [BINARY, "atlas", "--config", "atlas.yaml", "--realm", "Prod", "--data-dir", "data"],
    { env: { SMARTSTACK_INSECURE: "perhaps" } },
  );
  expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  expect(stderr.split("\n")).toEqual([
    "smartstack: 4 values are not usable; nothing was started",
    "  datadir (atlas.yaml:3): is not a key of this command, did you mean data-dir?",
    "  realm (flag --realm): a realm is 1 to 32 of a–z, 0–9 and '-', and begins with a letter, not \"Prod\"",
    '  insecure (environment SMARTSTACK_INSECURE): must be true or false, not "perhaps"',
    '  log-level (atlas.yaml:2): must be one of trace, debug, info, warn, error, not "loud"',
    "",
  ]);
  expect(existsSync(join(world.directory, "data"))).toBe(false);
});

scenario("the working directory's bunfig.toml runs no code, and its .env sets nothing", async (world) => {
  const marker = join(world.directory, "preloaded");
  await writeFile(join(world.directory, "bunfig.toml"), 'preload = ["./evil.ts"]\n[run]\npreload = ["./evil.ts"]\n');
  await writeFile(
    join(world.directory, "evil.ts"),
    `require("node:fs").writeFileSync(${JSON.stringify(marker)}, "ran");`,
  );
  const [wanted, planted] = [await world.port(), await world.port()];
  for (const name of [".env", ".env.local", ".env.production", ".env.development"])
    await writeFile(join(world.directory, name), `SMARTSTACK_LISTEN=127.0.0.1:${planted}\n`);
  // what stands in the file would lose against a variable
  await writeFile(join(world.directory, "atlas.yaml"), `listen: 127.0.0.1:${wanted}\ndata-dir: ./data\n`);
  await mkdir(join(world.directory, "data"));

  expect(await world.run([BINARY, "--version"])).toMatchObject({ code: 0 });
  world.spawn([BINARY, "atlas", "--config", "atlas.yaml"], { name: "atlas" });
  await eventually("Atlas listens where it was told", async () => {
    expect((await fetch(`http://127.0.0.1:${wanted}/readyz`)).status).toBe(200);
  });
  expect(existsSync(marker)).toBe(false);
});

scenario("a dead HTTP_PROXY keeps nobody from an Atlas on loopback", async (world) => {
  const dead = "http://127.0.0.1:1";
  const { url } = await startAtlas(world);
  for (const env of [
    { HTTP_PROXY: dead, HTTPS_PROXY: dead },
    { http_proxy: dead, https_proxy: dead, all_proxy: dead },
    { HTTP_PROXY: dead, http_proxy: dead, NO_PROXY: "example.com", no_proxy: "example.com" },
  ]) {
    const done = await world.run([BINARY, "services", "--atlas", url], { env });
    expect([env, done]).toEqual([env, { code: 0, stdout: "no services\n", stderr: "" }]);
    const named = await world.run([BINARY, "services", "--atlas", url.replace("127.0.0.1", "localhost")], { env });
    expect([env, named.code]).toEqual([env, 0]);
  }
});

scenario("an operator defines, registers, disables, enables and removes, and sees what he did", async (world) => {
  const { url } = await startAtlas(world);
  const smartstack = async (...argv: string[]): Promise<string> => {
    const { code, stdout, stderr } = await world.run([BINARY, ...argv], { env: { SMARTSTACK_ATLAS: url } });
    expect([argv, code, stderr]).toEqual([argv, 0, ""]);
    return stdout.trimEnd();
  };
  expect(await smartstack("define", "identity", "owner=core")).toBe("identity defined");
  expect(await smartstack("register", "identity", "host001:5004")).toBe("identity/host001:5004 registered");
  expect(await smartstack("register", "identity", "host002:5004")).toBe("identity/host002:5004 registered");
  expect(await smartstack("disable", "identity", "host001:5004", "--reason", "new disk", "--wait")).toBe(
    "identity/host001:5004 disabled; no host has a sidecar yet",
  );
  expect(await smartstack("status")).toMatch(
    /^realm local · revision \d+ · 1 Atlas · no hosts\nSERVICE +UP +OWNER +NOTE\nidentity +1\/2 +core +host001 disabled, \d+ s \(new disk\)$/,
  );
  expect(await smartstack("enable", "--host", "host001")).toBe("identity/host001:5004 enabled");
  expect(JSON.parse(await smartstack("status", "--json"))).toMatchObject({
    services: [{ service: "identity", usable: 2, total: 2, owner: "core", notes: [] }],
  });
  expect(await smartstack("settings", "set", "identity", "REDIS_DB=2")).toBe("identity has settings version 1");
  expect(await smartstack("settings", "get", "identity", "REDIS_DB")).toBe("2");
  expect(await smartstack("deregister", "identity", "--force")).toBe("identity deregistered");
  expect((await smartstack("audit")).split("\n")).toHaveLength(8);
});

scenario("a change is waited for until the host's HAProxy runs it, and why tells what HAProxy does", async (world) => {
  const { url } = await startAtlas(world);
  const [bind, admin, instance] = [await world.port(), await world.port(), await world.port()];
  const service = Bun.serve({ port: instance, hostname: "127.0.0.1", fetch: () => new Response("here") });
  world.defer(() => service.stop(true));
  world.spawn(
    [BINARY, "sidecar", "--host", "host001", "--state-dir", "state", "--stop-haproxy"].concat([
      "--atlas",
      url,
      "--bind",
      `127.0.0.1:${bind}`,
      "--admin",
      `127.0.0.1:${admin}`,
    ]),
    { name: "sidecar" },
  );
  await eventually("the sidecar is ready", async () => {
    expect((await fetch(`http://127.0.0.1:${admin}/readyz`)).status).toBe(200);
  });
  const env = { SMARTSTACK_ATLAS: url, SMARTSTACK_ADMIN: `127.0.0.1:${admin}` };
  const smartstack = async (...argv: string[]): Promise<string> => {
    const { code, stdout, stderr } = await world.run([BINARY, ...argv], { env });
    expect([argv, code, stderr]).toEqual([argv, 0, ""]);
    return stdout.trimEnd();
  };
  const ask = (): Promise<Response> =>
    fetch(`http://127.0.0.1:${bind}/`, { headers: { "runscope-service": "identity" } });
  const name = `host001:${instance}`;
  expect(await smartstack("register", "identity", name, "--address", "127.0.0.1", "--wait")).toMatch(
    new RegExp(`^identity/${name} registered, applied on 1 of 1 host in \\d+ ms$`),
  );
  expect(await (await ask()).text()).toBe("here");
  expect(await smartstack("disable", "identity", name, "--wait")).toMatch(
    / disabled, applied on 1 of 1 host in \d+ ms$/,
  );
  expect((await ask()).status).toBe(503);
  expect(await smartstack("why", "identity")).toMatch(
    new RegExp(
      `^host001 → identity: 0 of 1 usable\nSERVER +HAPROXY +BECAUSE\n${name} +DRAIN.* +disabled.*\nrevision \\d+ · Atlas connected`,
    ),
  );
  expect(await smartstack("status")).toMatch(
    /^realm local · revision \d+ · 1 Atlas · 1\/1 host applied · p99 \d+ ms\n/,
  );
  expect(await smartstack("enable", "identity", name, "--wait")).toContain("applied on 1 of 1 host");
  expect(await (await ask()).text()).toBe("here");
  expect(await world.run([BINARY, "why", "nobody"], { env })).toMatchObject({
    code: 1,
    stdout: expect.stringContaining("host001 → nobody: no such service on this host"),
  });
});

scenario("waiting for a host that does not answer ends with 4, without an Atlas with 3", async (world) => {
  const { url, process } = await startAtlas(world);
  const run = (...argv: string[]) => world.run([BINARY, ...argv, "--atlas", url]);
  expect(await run("register", "identity", "host001:5004")).toMatchObject({ code: 0 });
  // a sidecar that follows and never acks
  const silent = new AbortController();
  world.defer(() => silent.abort());
  const stream = await fetch(`${url}/v1/watch?agent=host001&boot=${crypto.randomUUID()}`, { signal: silent.signal });
  expect(stream.status).toBe(200);
  // a body that nobody reads may be collected, and its connection closed
  const followed = stream.text().catch(() => "aborted");
  const late = await run("disable", "identity", "host001:5004", "--wait", "--timeout", "200ms");
  expect(late).toMatchObject({ code: 4, stdout: "", stderr: expect.stringContaining("pending: host001") });
  silent.abort();
  expect(await followed).toBe("aborted");
  await process.stop();
  expect(await run("status")).toEqual({
    code: 3,
    stdout: "",
    stderr: expect.stringContaining(`could not reach Atlas: ${url}: nobody listens there`),
  });
  expect(await world.run([BINARY, "why", "identity", "--admin", url.slice(7)])).toMatchObject({ code: 3 });
});

scenario("pipes: a reader that leaves early is no failure, a slow one gets everything", async (world) => {
  const { url } = await startAtlas(world);
  const names = Array.from({ length: 800 }, (_, index) => `service-${index}`);
  for (let start = 0; start < names.length; start += 50) {
    const batch = names.slice(start, start + 50).map((name) =>
      fetch(`${url}/v1/services/${name}`, {
        method: "PUT",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ description: "x".repeat(100), owner: "somebody with a name" }),
      }),
    );
    expect((await Promise.all(batch)).every(({ status }) => status === 201)).toBe(true);
  }
  const pipe = async (script: string) =>
    world.run(["bash", "-o", "pipefail", "-c", script], { env: { BINARY, SMARTSTACK_ATLAS: url } });
  expect(await pipe('"$BINARY" services --json | head -c 5 >/dev/null')).toEqual({ code: 0, stdout: "", stderr: "" });
  expect(await pipe('"$BINARY" services | head -n 1')).toMatchObject({ code: 0, stderr: "" });
  // like every follower it notices when there is something to say
  const following = pipe('"$BINARY" watch | head -n 1');
  const changing = setInterval(
    () => void world.run([BINARY, "define", "ads", `owner=${Date.now()}`, "--atlas", url]),
    500,
  );
  world.defer(() => clearInterval(changing));
  expect(await following).toEqual({ code: 0, stdout: expect.stringContaining("800 services"), stderr: "" });
  clearInterval(changing);
  const slow = await pipe('"$BINARY" services --json | (sleep 0.5; cat)');
  expect((JSON.parse(slow.stdout) as unknown[]).length).toBe(801);
  expect(slow.stdout.length).toBeGreaterThan(65_536);
  for (const command of ["services --json", "print units", "--help"])
    expect([command, await pipe(`"$BINARY" ${command} >/dev/full`)]).toEqual([
      command,
      {
        code: 1,
        stdout: "",
        stderr: expect.stringMatching(/^smartstack: the answer could not be written: ENOSPC.*\n$/),
      },
    ]);
});

scenario("bash completes with the binary that is on the PATH", async (world) => {
  const directory = BINARY.slice(0, BINARY.lastIndexOf("/"));
  const script = `
    eval "$(smartstack completion bash)"
    COMP_WORDS=(smartstack atlas --log-level = d); COMP_CWORD=4
    _smartstack
    printf '%s\\n' "\${COMPREPLY[@]}"`;
  const path = `${directory}:${process.env.PATH}`;
  expect(await world.run(["bash", "--norc", "-c", script], { env: { PATH: path } })).toEqual({
    code: 0,
    stdout: "debug\n",
    stderr: "",
  });
});

scenario("print gives files that the programs take", async (world) => {
  const config = await world.run([BINARY, "print", "config", "atlas"]);
  const port = await world.port();
  await writeFile(
    join(world.directory, "atlas.yaml"),
    config.stdout
      .replace(/^#listen: .*$/m, `listen: 127.0.0.1:${port}`)
      .replace(/^#data-dir: .*$/m, "data-dir: ./data"),
  );
  world.spawn([BINARY, "atlas", "--config", "atlas.yaml"], { name: "atlas" });
  await eventually("Atlas runs on its printed configuration", async () => {
    expect((await fetch(`http://127.0.0.1:${port}/readyz`)).status).toBe(200);
  });
  expect((await world.run([BINARY, "print", "units", "sidecar"])).stdout).toContain("KillMode=process");
  expect((await world.run([BINARY, "print", "template"])).stdout).toContain("frontend http-in");
});
