import { type Command, defineCommand, usageError } from "./command.ts";
import { EXIT } from "./exit-codes.ts";

export const print: Command = defineCommand({
  name: "print",
  summary: "files that a host needs: systemd units, configuration, and HAProxy's configuration explained",
  arguments: [
    { name: "WHAT", describe: "what to print", choices: ["units", "template", "config"] },
    {
      name: "NAME",
      describe: "of units and config: which program's",
      optional: true,
      choices: ["atlas", "sidecar", "serve"],
    },
  ],
  examples: [
    "smartstack print units sidecar > /etc/systemd/system/smartstack-sidecar.service",
    "smartstack print config atlas > /etc/smartstack/atlas.yaml",
    "smartstack print template",
  ],
  options: {},
  async run({ args: [what, name] }) {
    const { configurations, template, units } = await import("./printed.ts");
    if (what === "template" && name !== undefined) throw usageError(print, `unexpected argument "${name}"`);
    // two files of configuration in a row are none; units say in their first line which file they are
    if (what === "config" && name === undefined)
      throw usageError(print, `missing NAME: which program's, one of ${Object.keys(configurations).join(", ")}`);
    const texts = what === "units" ? units : configurations;
    if (what === "template") process.stdout.write(template);
    else process.stdout.write(name === undefined ? Object.values(texts).join("\n") : (texts[name] ?? ""));
    return EXIT.done;
  },
});
