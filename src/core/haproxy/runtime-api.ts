// HAProxy's runtime API, through the socket of the master. The master passes a command to the worker whose pid is named, so
// an answer never comes from a worker that a reload has just replaced, and old workers can be told of a removal too; a
// worker's own socket is answered by whichever process accepts first.
import { createConnection } from "node:net";
import { Fault } from "../lib/errors.ts";

export type Batch = {
  /** Path of the master's socket. */
  readonly socket: string;
  /** Which process: the master, or a worker by its pid. */
  readonly target: "master" | number;
  readonly commands: readonly string[];
  /** Limit for the whole batch, in ms. @default 10_000 */
  readonly timeoutMs?: number;
};

/**
 * Runs commands in order over one fresh connection (a held one would keep talking to the past) and returns their
 * answers, trimmed, one each.
 * @throws Fault `haproxy_unreachable` when nobody answers, or not to the end: then some of the commands may have run
 */
export function runBatch({ socket, target, commands, timeoutMs = 10_000 }: Batch): Promise<readonly string[]> {
  if (commands.length === 0) return Promise.resolve([]);
  // the interactive mode is the one that says where an answer ends: with a prompt
  const prompt = target === "master" ? "master> " : `${target}> `;
  const entry = target === "master" ? ["prompt"] : ["prompt", `@!${target}`];
  const fault = (message: string, cause?: unknown): Fault =>
    new Fault({ code: "haproxy_unreachable", message: `HAProxy's master socket ${socket}: ${message}`, cause });

  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const connection = createConnection(socket);
    const timer = setTimeout(() => connection.destroy(fault(`no answer within ${timeoutMs} ms`)), timeoutMs);
    connection.on("connect", () => {
      connection.write(`${[...entry, ...commands, "quit"].join("\n")}\n`);
    });
    connection.on("data", (chunk) => chunks.push(Buffer.from(chunk)));
    connection.on("error", (error) => {
      clearTimeout(timer);
      reject(error instanceof Fault ? error : fault("cannot be reached", error));
    });
    connection.on("close", () => {
      clearTimeout(timer);
      const answers = splitAnswers(Buffer.concat(chunks).toString(), prompt);
      if (answers.length < commands.length) reject(fault("closed before all was answered"));
      else resolve(answers.slice(0, commands.length));
    });
  });
}

/** Everything that stands between two prompts is an answer; what stands before the first belongs to entering the mode. */
function splitAnswers(text: string, prompt: string): readonly string[] {
  const pieces = text.split(prompt);
  return pieces.slice(1, -1).map((piece) => piece.trim());
}

/** The processes of one HAProxy. */
export type Processes = {
  readonly master: number;
  /** The worker that takes new connections; undefined while there is none. */
  readonly worker: number | undefined;
  /** Workers that a reload replaced and that still have clients. */
  readonly old: readonly number[];
  /** How often a reload has failed in a row. */
  readonly failedReloads: number;
  readonly version: string;
};

/** @throws Fault `haproxy_unreachable` */
export async function showProcesses(socket: string, timeoutMs = 2_000): Promise<Processes> {
  const [answer = ""] = await runBatch({ socket, target: "master", commands: ["show proc"], timeoutMs });
  return parseProcesses(answer);
}

export function parseProcesses(text: string): Processes {
  let master = 0;
  let failedReloads = 0;
  let version = "";
  let section = "";
  const workers: number[] = [];
  const old: number[] = [];
  for (const line of text.split("\n")) {
    if (line.startsWith("# ")) section = line.slice(2).trim();
    const match = /^(\d+)\s+(master|worker)\s+\d+(?:\s+\[failed:\s*(\d+)\])?\s+\S+\s+(\S+)/.exec(line);
    if (match === null) continue;
    const pid = Number(match[1]);
    if (match[2] === "master") [master, failedReloads, version] = [pid, Number(match[3] ?? 0), match[4] ?? ""];
    else (section === "old workers" ? old : workers).push(pid);
  }
  return { master, worker: workers[0], old, failedReloads, version };
}
