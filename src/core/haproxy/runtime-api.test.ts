import { afterAll, afterEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseProcesses, runBatch } from "./runtime-api.ts";

const directory = mkdtempSync(join(tmpdir(), "smartstack-api-"));
const socket = join(directory, "master.sock");
let server: Server | undefined;

afterEach(async () => {
  await new Promise((resolve) => (server === undefined ? resolve(undefined) : server.close(resolve)));
  rmSync(socket, { force: true });
});

afterAll(() => rmSync(directory, { recursive: true }));

/** A master that answers like HAProxy 2.6 and closes when `answer` returns undefined. */
function master(answer: (command: string) => string | undefined): Promise<void> {
  server = createServer((connection) => {
    let prompt = "";
    connection.on("error", () => undefined);
    connection.on("data", (data) => {
      for (const command of data.toString().trim().split("\n")) {
        if (command === "prompt") prompt = "\nmaster> ";
        else if (command.startsWith("@!")) prompt = `\n${command.slice(2)}> `;
        else if (command === "quit") {
          connection.end();
          return;
        } else {
          const text = answer(command);
          if (text === undefined) {
            connection.destroy();
            return;
          }
          connection.write(text === "" ? "\n" : `${text}\n`);
        }
        connection.write(prompt.trimStart());
      }
    });
  });
  return new Promise((resolve) => server?.listen(socket, resolve));
}

test("every command of a batch has its own answer, also an empty one or one of many lines", async () => {
  await master((command) => (command === "a" ? "" : command === "b" ? "No such server." : "1\n# x\ny"));
  expect(await runBatch({ socket, target: 77, commands: ["a", "b", "c", "a"] })).toEqual([
    "",
    "No such server.",
    "1\n# x\ny",
    "",
  ]);
  expect(await runBatch({ socket, target: "master", commands: ["b"] })).toEqual(["No such server."]);
  expect(await runBatch({ socket, target: 77, commands: [] })).toEqual([]);
});

test("a batch that was cut off is an error, whatever part of it was answered", async () => {
  await master((command) => (command === "a" ? "" : undefined));
  const failure = await runBatch({ socket, target: 77, commands: ["a", "b"] }).catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: "haproxy_unreachable" });
});

test("nobody there, or nobody answering, is an error within the limit", async () => {
  const missing = await runBatch({ socket, target: 77, commands: ["a"] }).catch((error: unknown) => error);
  expect(missing).toMatchObject({ code: "haproxy_unreachable" });
  server = createServer((connection) => connection.on("error", () => undefined).resume());
  await new Promise<void>((resolve) => server?.listen(socket, resolve));
  const silent = await runBatch({ socket, target: 77, commands: ["a"], timeoutMs: 50 }).catch(
    (error: unknown) => error,
  );
  expect(silent).toMatchObject({ code: "haproxy_unreachable", message: expect.stringContaining("within 50 ms") });
});

test("the processes are read from show proc", () => {
  const text = `#<PID>          <type>          <reloads>       <uptime>        <version>
1162            master          5 [failed: 2]   0d00h02m07s     2.6.12-1
# workers
1271            worker          1               0d00h00m00s     2.6.12-1
# old workers
1233            worker          3               0d00h00m43s     2.6.12-1
1200            worker          4               0d00h00m50s     2.6.12-1
# programs
`;
  expect(parseProcesses(text)).toEqual({
    master: 1_162,
    worker: 1_271,
    old: [1_233, 1_200],
    failedReloads: 2,
    version: "2.6.12-1",
  });
  expect(parseProcesses("")).toMatchObject({ master: 0, worker: undefined, old: [] });
});
