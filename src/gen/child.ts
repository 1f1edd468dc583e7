// Programs that gen runs: itself for test and boot, git, a template's own test command.
import { describeError, Fault } from "../core/lib/errors.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

export type ChildOptions = {
  readonly cwd: string;
  readonly environment: Environment;
  /** Ends the child with SIGKILL. */
  readonly signal: AbortSignal;
};

export type Child = {
  /** Everything it printed so far, both streams. */
  output(): string;
  /** Resolves with the exit status, 128 + signal when killed, once its output is read. */
  readonly exited: Promise<number>;
  kill(signal: NodeJS.Signals): void;
};

/**
 * Starts a program without a terminal: it can ask nobody anything. It dies with this process, however that ends, and so
 * does what it started itself, when it is this binary.
 * @throws Fault `not_started` when there is no such program
 */
export function startChild(command: readonly string[], options: ChildOptions): Child {
  const chunks: string[] = [];
  const child = spawn(command, options);
  const drained = Promise.all([child.stdout, child.stderr].map((stream) => collect(stream, chunks)));
  return {
    output: () => chunks.join(""),
    exited: child.exited.then(async (code) => {
      await drained;
      return code;
    }),
    kill: (signal) => child.kill(signal),
  };
}

/** Runs a program to its end. */
export async function runChild(
  command: readonly string[],
  options: ChildOptions,
): Promise<{ readonly code: number; readonly output: string }> {
  const child = startChild(command, options);
  const code = await child.exited;
  options.signal.throwIfAborted();
  return { code, output: child.output() };
}

function spawn(
  command: readonly string[],
  { cwd, environment, signal }: ChildOptions,
): Bun.Subprocess<"ignore", "pipe", "pipe"> {
  signal.throwIfAborted();
  try {
    return Bun.spawn([...command], {
      cwd,
      env: { ...environment, BUN_FEATURE_FLAG_NO_ORPHANS: "1" },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      signal,
      killSignal: "SIGKILL",
    });
  } catch (error) {
    throw new Fault({ code: "not_started", message: `${command[0] ?? ""}: ${describeError(error)}`, cause: error });
  }
}

async function collect(stream: ReadableStream<Uint8Array>, into: string[]): Promise<void> {
  const decoder = new TextDecoder();
  for await (const chunk of stream) into.push(decoder.decode(chunk, { stream: true }));
}

/** Where a program lies on the child's PATH, or undefined. */
export function which(program: string, environment: Environment): string | undefined {
  return Bun.which(program, { PATH: environment.PATH ?? "" }) ?? undefined;
}
