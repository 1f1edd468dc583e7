// Trying a new project out: its tests, and one start. Both run this same program as a child, the way its owner will.
import { errorCode, Fault } from "../core/lib/errors.ts";
import { type Child, type Environment, runChild, startChild, which } from "./child.ts";
import { holdTrialPort } from "./port.ts";
import type { StepResult } from "./steps.ts";
import type { Template } from "./template.ts";

export type Trial = {
  readonly project: string;
  readonly template: Template;
  /** How to run this program: the binary, or Bun and main.ts. */
  readonly program: readonly string[];
  readonly environment: Environment;
  readonly signal: AbortSignal;
  /** A directory of this run, for logs and sockets that nobody keeps. */
  readonly scratch: string;
};

const TEST_LIMIT = 60_000;
const BOOT_LIMIT = 15_000;
/** Between two questions of a service that is starting, in ms. */
const POLL = 5;

/** The first program that the template needs and this machine does not have. */
function missing({ template, environment }: Trial): string | undefined {
  return template.requires.find((program) => which(program, environment) === undefined);
}

/** Runs the project's tests. @throws Fault `tests_failed` with their output as the hint */
export async function runTests(trial: Trial): Promise<StepResult> {
  const lacking = missing(trial);
  if (lacking !== undefined) return { text: "left out", note: `${lacking} is not on PATH here` };
  const command = trial.template.test ?? [...trial.program, "test", trial.project];
  const { code, output } = await runChild(command, {
    cwd: trial.project,
    environment: trialEnvironment(trial),
    signal: AbortSignal.any([trial.signal, AbortSignal.timeout(TEST_LIMIT)]),
  });
  if (code !== 0)
    throw new Fault({
      code: "tests_failed",
      message: `the generated tests failed (status ${code})`,
      hint: output.trim(),
    });
  // bun test and unittest say how many
  const count = /^\s*(\d+) pass$/m.exec(output)?.[1] ?? /^Ran (\d+) tests? in/m.exec(output)?.[1];
  return { text: count === undefined ? "passed" : `${count} passed` };
}

/** Starts the service once, asks whether it is ready, ends it. @throws Fault `boot_failed` with the service's output as the hint */
export async function boot(trial: Trial): Promise<StepResult> {
  const lacking = missing(trial);
  if (lacking !== undefined) return { text: "left out", note: `${lacking} is not on PATH here` };
  const port = await holdTrialPort();
  try {
    return await bootOn(port.port, trial);
  } finally {
    await port.release();
  }
}

async function bootOn(port: number, trial: Trial): Promise<StepResult> {
  const { ready } = trial.template;
  const limit = AbortSignal.any([trial.signal, AbortSignal.timeout(BOOT_LIMIT)]);
  const service = startChild(
    [
      ...trial.program,
      "serve",
      trial.project,
      "--listen",
      "127.0.0.1",
      "--port",
      String(port),
      // alone: a service on trial must not get traffic, nor leave logs
      "--sidecar",
      "/dev/null",
      "--log-dir",
      `${trial.scratch}/log`,
    ],
    { cwd: trial.project, environment: trialEnvironment(trial), signal: limit },
  );
  const status = await becomeReady(service, `http://127.0.0.1:${port}${ready}`, limit);
  service.kill("SIGTERM");
  const code = await service.exited;
  trial.signal.throwIfAborted();
  if (status === 200 && code === 0) return { text: `${ready} ${status}` };
  throw new Fault({ code: "boot_failed", message: bootProblem(ready, status, code), hint: service.output().trim() });
}

function bootProblem(ready: string, status: number | undefined, code: number): string {
  if (status === undefined) return `the service did not answer (status ${code})`;
  return status === 200 ? `the service did not end well (status ${code})` : `${ready} answers ${status}`;
}

/** Asks until the answer is 200, the service ended, or time is over. Returns the status of the last answer, if any. */
async function becomeReady(service: Child, url: string, limit: AbortSignal): Promise<number | undefined> {
  const ended = new AbortController();
  void service.exited.finally(() => ended.abort());
  const signal = AbortSignal.any([limit, ended.signal]);
  let status: number | undefined;
  while (!signal.aborted) {
    try {
      const response = await fetch(url, { signal, keepalive: false });
      await response.body?.cancel();
      status = response.status;
      if (status === 200) break;
    } catch (error) {
      // refused: it does not listen yet
      if (errorCode(error) === undefined && !signal.aborted) throw error;
    }
    await Bun.sleep(POLL);
  }
  return status;
}

/** The caller's environment without its smartstack settings, which are about other services; what is written stays inside. */
function trialEnvironment({ environment, scratch }: Trial): Environment {
  const kept = Object.entries(environment).filter(([name]) => !name.startsWith("SMARTSTACK_"));
  return { ...Object.fromEntries(kept), TMPDIR: scratch, PYTHONDONTWRITEBYTECODE: "1" };
}
