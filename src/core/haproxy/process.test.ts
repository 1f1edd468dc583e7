import { expect, test } from "bun:test";
import { isAlive, pathsIn, probeBind } from "./process.ts";

test("a state directory whose sockets would have too long names is refused with a way out", () => {
  expect(pathsIn("/var/lib/smartstack/haproxy").master).toBe("/var/lib/smartstack/haproxy/master.sock");
  const failure = ((): unknown => {
    try {
      return pathsIn(`/${"d".repeat(90)}`);
    } catch (error) {
      return error;
    }
  })();
  expect(failure).toMatchObject({ code: "path_too_long", hint: expect.stringContaining("--state-dir") });
});

test("a busy address is told before HAProxy would share it", async () => {
  const busy = Bun.listen({ port: 0, hostname: "127.0.0.1", socket: { data: () => undefined } });
  const failure = await probeBind(`127.0.0.1:${busy.port}`).catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: "address_in_use", hint: expect.stringContaining("--bind") });
  busy.stop(true);
  await probeBind(`127.0.0.1:${busy.port}`);
});

test("an address that is not of this machine is told", async () => {
  const failure = await probeBind("203.0.113.7:4000").catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: "bind_failed" });
});

test("a process that ended is not alive, collected or not", async () => {
  expect(isAlive(process.pid)).toBe(true);
  const child = Bun.spawn(["sh", "-c", "sleep 0.01 & echo $!; exec sleep 5"], { stdout: "pipe" });
  const reader = child.stdout.getReader();
  const orphan = Number(new TextDecoder().decode((await reader.read()).value));
  // its parent became a `sleep` that collects nobody: the child stays a zombie
  while (isAlive(orphan)) await Bun.sleep(5);
  expect(isAlive(child.pid)).toBe(true);
  child.kill();
  await child.exited;
  expect(isAlive(child.pid)).toBe(false);
});
