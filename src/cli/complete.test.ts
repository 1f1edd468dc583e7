import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { capture } from "./capture.ts";
import { defineCommand } from "./command.ts";
import { commands } from "./commands.ts";
import { type Completion, complete } from "./complete.ts";
import { EXIT } from "./exit-codes.ts";
import { oneOf, option, path, texts, toggle } from "./options.ts";

const command = (name: string, more = {}) =>
  defineCommand({
    name,
    summary: `does ${name}`,
    options: {
      store: option(oneOf(["embedded", "cluster"]), "kind of store"),
      file: option(path(), "a file", "", "f"),
      dataDir: option(path("DIR"), "a directory"),
      header: option(texts("K: V"), "headers"),
      wait: option(toggle, "wait", false),
    },
    run: async () => EXIT.done,
    ...more,
  });
const known = [
  command("atlas"),
  command("print", { arguments: [{ name: "WHAT", describe: "what", choices: ["units", "config"] }] }),
  command("serve", { arguments: [{ name: "DIR", describe: "where" }] }),
  command("settings get"),
  command("settings set"),
  command("agents"),
  command("agents forget", { arguments: [{ name: "HOST", describe: "which" }] }),
];
const words = (found: Completion): unknown => (typeof found === "string" ? found : found.map(({ word }) => word));
const after = (...typed: string[]): unknown => words(complete(known, typed));
const FLAGS = ["--store", "--file", "--data-dir", "--header", "--wait", "--config", "--help"];

describe("what could come next", () => {
  test("is a command, by what was typed of it", () => {
    expect(after("")).toEqual(["atlas", "print", "serve", "settings", "agents", "help"]);
    expect(after("a")).toEqual(["atlas", "agents"]);
    expect(after("-")).toEqual(["--help", "--version"]);
    expect(after("zzz")).toEqual([]);
  });

  test("is the second word of a command, beside what the first takes", () => {
    expect(after("settings", "")).toEqual(["get", "set"]);
    expect(after("settings", "set", "")).toEqual([]);
    expect(after("agents", "")).toEqual(["forget"]);
    expect(after("agents", "forget", "")).toEqual([]);
  });

  test("is a flag, each once, unless it may be repeated", () => {
    expect(after("atlas", "-")).toEqual(FLAGS);
    expect(after("atlas", "--wait", "--store=cluster", "--header", "x", "--")).toEqual(
      FLAGS.filter((flag) => !["--wait", "--store"].includes(flag)),
    );
    expect(after("settings", "get", "--w")).toEqual(["--wait"]);
    expect(after("settings", "-")).toEqual(["--help"]);
  });

  test("is a value of the flag before it", () => {
    expect(after("atlas", "--store", "")).toEqual(["embedded", "cluster"]);
    expect(after("atlas", "--store=")).toEqual(["--store=embedded", "--store=cluster"]);
    expect(after("atlas", "--file", "")).toBe("files");
    expect(after("atlas", "-f", "")).toBe("files");
    expect(after("atlas", "--config", "")).toBe("files");
    expect(after("atlas", "--data-dir", "")).toBe("directories");
    expect(after("atlas", "--header", "")).toEqual([]);
    expect(after("atlas", "--wait", "")).toEqual([]);
  });

  test("is an argument: one of its words, a path, or nothing we know", () => {
    expect(after("print", "")).toEqual(["units", "config"]);
    expect(after("print", "c")).toEqual(["config"]);
    expect(after("print", "--wait", "u")).toEqual(["units"]);
    expect(after("print", "units", "")).toEqual([]);
    expect(after("serve", "")).toBe("directories");
  });

  test("is the shell's own behind --", () => {
    expect(after("serve", "--", "")).toBe("files");
  });
});

test("every command of this program can be reached by completing it word by word", () => {
  for (const { name } of commands) {
    const parts = name.split(" ");
    for (const [index, part] of parts.entries())
      expect(words(complete(commands, [...parts.slice(0, index), part]))).toContain(part);
  }
});

describe("the scripts", () => {
  test("are printed for three shells, and no other", async () => {
    for (const shell of ["bash", "zsh", "fish"]) {
      const { code, stdout } = await capture(["completion", shell]);
      expect(code).toBe(0);
      expect(stdout).toContain(`completion ${shell} --`);
    }
    expect((await capture(["completion", "ksh"])).code).toBe(2);
  });

  test("get descriptions where the shell shows them", async () => {
    const answer = async (shell: string): Promise<string> =>
      (await capture(["completion", shell, "--", "completion", "z"])).stdout;
    expect(await answer("bash")).toBe("zsh\n");
    expect(await answer("zsh")).toBe("zsh:which one\n");
    expect(await answer("fish")).toBe("zsh\twhich one\n");
  });

  test("get nothing but words, whatever stands on the line", async () => {
    for (const line of [["nonsense", ""], ["--", ""], ["=", "="], [""], ["settings", "set", "x", "--file", ""]])
      expect((await capture(["completion", "bash", "--", ...line])).code).toBe(0);
  });
});

describe("a real bash", () => {
  /** What it offers for each line; a line is cut as bash does it: = is a word of its own. */
  async function bash(...lines: string[][]): Promise<string[][]> {
    const directory = mkdtempSync(join(tmpdir(), "smartstack-bash-"));
    try {
      writeFileSync(join(directory, "some file.yaml"), "");
      const program = `${process.execPath} ${join(import.meta.dir, "../main.ts")}`;
      const complete = (line: string[]): string => `
        COMP_WORDS=(smartstack ${line.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${line.length}
        _smartstack
        printf '%s\\n' "\${COMPREPLY[@]}" -- `;
      const script = `
        smartstack() { ${program} "$@"; }
        eval "$(smartstack completion bash)"
        ${lines.map(complete).join("\n")}`;
      const { exitCode, stdout, stderr } = await Bun.$`bash --norc -c ${script}`.cwd(directory).quiet().nothrow();
      expect([exitCode, stderr.toString()]).toEqual([0, ""]);
      const offers = stdout.toString().split("--\n").slice(0, -1);
      return offers.map((offer) => offer.split("\n").filter(Boolean));
    } finally {
      rmSync(directory, { recursive: true });
    }
  }

  test("completes commands, flags, values and files", async () => {
    const offers = await bash(
      ["sett"],
      ["settings", "g"],
      ["atlas", "--log-l"],
      ["atlas", "--log-level", "d"],
      ["atlas", "--log-level", "=", "d"],
      ["atlas", "--log-level", "="],
      ["define", "x", "--file", "so"],
    );
    expect(offers).toEqual([
      ["settings"],
      ["get"],
      ["--log-level"],
      ["debug"],
      ["debug"],
      ["trace", "debug", "info", "warn", "error"],
      ["some file.yaml"],
    ]);
  });
});
