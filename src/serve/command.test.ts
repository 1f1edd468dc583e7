import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pino from "pino";
import { fakeClock } from "../core/lib/clock.ts";
import { startCommand } from "./command.ts";
import { plainManifest } from "./manifest.ts";

const directory = mkdtempSync(join(tmpdir(), "smartstack-command-"));
afterAll(() => rmSync(directory, { recursive: true }));

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

function start(command: readonly string[]) {
  const lines: string[] = [];
  const clock = fakeClock();
  const running = startCommand(
    {
      manifest: plainManifest("billing", { kind: "command", command }),
      command,
      directory,
      environment: process.env,
      realm: "local",
      host: "here",
      listen: "127.0.0.1",
      port: 0,
      sidecar: join(directory, "none.sock"),
      logger: pino({}, { write: (line: string) => void lines.push((JSON.parse(line) as { msg: string }).msg) }),
    },
    clock,
  );
  return { running, clock, lines };
}

test("a program that listens nowhere is told of once, with where it was looked for", async () => {
  const { running, clock, lines } = start(["sleep", "60"]);
  const command = await running;
  for (let second = 0; second < 25; second += 1) await clock.advance(1_000);
  const told = lines.filter((line) => line.includes("does not answer"));
  expect(told).toHaveLength(1);
  expect(told[0]).toContain(`http://127.0.0.1:${command.port}/healthcheck`);
  await command.stop();
  expect(clock.pending).toBe(0);
});

test("what a program leaves behind when it ends ends, too", async () => {
  const file = join(directory, "pid");
  const { running } = start([
    "sh",
    "-c",
    `sh -c 'trap "" TERM; echo $$ > ${file}; while :; do sleep 1; done' & while ! test -s ${file}; do sleep 0.01; done; exit 3`,
  ]);
  const { exitCode, ended } = await running;
  expect(await exitCode).toBe(3);
  expect((await ended)?.code).toBe("command_ended");
  const left = `/proc/${readFileSync(file, "utf8").trim()}/stat`;
  await until(() => !existsSync(left) || / [ZX] /.test(readFileSync(left, "utf8")));
});
