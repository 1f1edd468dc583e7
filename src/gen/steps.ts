import { describeError, Fault } from "../core/lib/errors.ts";
import type { Clock } from "../core/lib/clock.ts";

/** What a step that went well, or was left out, says in its line; `note` follows on a line of its own. */
export type StepResult = { readonly text: string; readonly note?: string | undefined };

/** Numbered steps, each a line with its result and time: `  2 test      6 passed          170 ms`. */
export interface Steps {
  /** @throws what `work` threw, as a Fault that names the step */
  run(name: string, work: () => Promise<StepResult>): Promise<void>;
}

export function createSteps(clock: Clock, print: (line: string) => void): Steps {
  let number = 0;
  return {
    async run(name, work) {
      number += 1;
      const label = `step ${number}, ${name}`;
      const start = clock.now();
      const line = (text: string): string =>
        `  ${number} ${name.padEnd(9)} ${text.padEnd(16)} ${`${clock.now() - start} ms`.padStart(7)}`;
      try {
        const { text, note } = await work();
        print(line(text));
        if (note !== undefined) print(`    ${note}`);
      } catch (error) {
        print(line("failed"));
        throw error instanceof Fault
          ? new Fault({
              code: error.code,
              message: `${label}: ${describeError(error)}`,
              hint: error.hint,
              cause: undefined,
            })
          : new Fault({ code: "step_failed", message: `${label}: ${describeError(error)}`, cause: undefined });
      }
    },
  };
}
