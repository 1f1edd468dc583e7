// Where a command's answer goes. Messages about failures go to standard error, in index.ts.
import { describeError, errorCode } from "../core/lib/errors.ts";
import { EXIT } from "./exit-codes.ts";

/** One answer: text for people, or JSON for programs (indented, since people read that too). */
export function answer(json: boolean, value: unknown, text: () => string): void {
  print(json ? JSON.stringify(value, null, 2) : text());
}

/** Text and a line end, to standard output. Nothing at all when there is no text. */
export function print(text: string): void {
  if (text !== "") process.stdout.write(`${text}\n`);
}

let guarded = false;
let lost = false;

/**
 * Makes failures of the two standard streams harmless to whatever runs: a reader that has seen enough
 * (`smartstack services | head -1`) is no failure at all, and a full disk behind standard output is one in the end.
 */
export function guardOutput(): void {
  if (guarded) return;
  guarded = true;
  process.stdout.on("error", (error) => {
    if (errorCode(error) === "EPIPE" || lost) return;
    lost = true;
    // it may come when the command has already ended well
    process.exitCode = EXIT.failed;
    process.stderr.write(`smartstack: the answer could not be written: ${describeError(error)}\n`);
  });
  // nobody is left to tell
  process.stderr.on("error", () => undefined);
}

/** True when a part of the answer got lost. */
export function outputLost(): boolean {
  return lost;
}
