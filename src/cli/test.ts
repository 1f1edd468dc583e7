import { defineCommand } from "./command.ts";
import { inheritedEnvironment } from "./config.ts";
import { EXIT } from "./exit-codes.ts";

export const test = defineCommand({
  name: "test",
  summary: "run a service's tests (bun:test); nothing has to be installed",
  arguments: [{ name: "DIR", describe: "the service's directory, default the current one", optional: true }],
  acceptsRest: "ARGUMENTS of the test runner",
  examples: ["smartstack test", "smartstack test identity", "smartstack test identity -- --test-name-pattern team"],
  options: {},
  async run({ args, rest }) {
    const { runTests } = await import("../serve/test-run.ts");
    const interrupt = new AbortController();
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => interrupt.abort());
    const code = await runTests({
      directory: args[0] ?? ".",
      arguments: rest ?? [],
      environment: inheritedEnvironment(),
      signal: interrupt.signal,
    });
    return code === 0 ? EXIT.done : EXIT.failed;
  },
});
