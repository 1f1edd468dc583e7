// Holds config/*.yaml and docs/config.md to the code. After a change of options:
//   UPDATE=1 bun test src/cli/reference.test.ts
import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { commands } from "./commands.ts";
import { resolveConfig } from "./config.ts";
import { formatDefault } from "./options.ts";
import { CONFIGURABLE, configFile, optionTables } from "./reference.ts";

const root = resolve(import.meta.dir, "../..");
const MARK = "<!-- from here on made from the code: UPDATE=1 bun test src/cli/reference.test.ts -->\n";

function commandOf(name: string) {
  const command = commands.find((other) => other.name === name);
  if (command === undefined) throw new Error(`there is no command ${name}`);
  return command;
}

function holdTo(path: string, expected: string): void {
  if (process.env.UPDATE === "1") writeFileSync(path, expected);
  expect(readFileSync(path, "utf8")).toBe(expected);
}

for (const name of CONFIGURABLE) {
  describe(`config/${name}.yaml`, () => {
    const path = resolve(root, "config", `${name}.yaml`);

    test("lists every option of the command at its default", () => {
      holdTo(path, configFile(commandOf(name)));
    });

    const { options } = commandOf(name);
    const text = readFileSync(path, "utf8");
    const resolved = (content: string) =>
      resolveConfig(options, { flags: {}, environment: {}, file: { path, text: content } });

    test("changes nothing as it is", () => {
      expect(resolved(text).values).toEqual(resolveConfig(options, { flags: {}, environment: {} }).values);
    });

    test("is accepted with every line uncommented, and the defaults are the true ones", () => {
      const { values, sources } = resolved(text.replaceAll(/^#(?=[a-z])/gm, ""));
      for (const [key, option] of Object.entries(options)) {
        expect([key, sources[key]?.kind]).toEqual([key, "file"]);
        // defaults that depend on the machine are shown as they are for root
        const machine = /^\/|^~/.test(formatDefault(option) ?? "/") || key === "host";
        if (!machine && option.default !== undefined) expect([key, values[key]]).toEqual([key, option.default]);
      }
    });
  });
}

test("docs/config.md lists every option of every command", () => {
  const path = resolve(root, "docs/config.md");
  const prose = readFileSync(path, "utf8").split(MARK)[0] ?? "";
  holdTo(path, `${prose}${MARK}\n${optionTables(commands)}`);
});
