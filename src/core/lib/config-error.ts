// What is wrong with a configuration, the same for a command's options and for a service's own keys.
import { Fault } from "./errors.ts";

/** One thing wrong with a configuration. Its message never holds a secret's value. */
export type ConfigIssue = { readonly key: string; readonly source: string; readonly message: string };

/** Everything wrong with a configuration, at once. */
export class ConfigError extends Fault {
  readonly issues: readonly ConfigIssue[];

  constructor(issues: readonly ConfigIssue[]) {
    super({
      code: "config",
      message: issues.map(({ key, source, message }) => `${key} (${source}): ${message}`).join("\n"),
    });
    this.issues = issues;
  }
}
