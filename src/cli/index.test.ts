import { afterEach, describe, expect, test } from "bun:test";
import { Fault } from "../core/lib/errors.ts";
import { capture, type Captured } from "./capture.ts";
import { type Command, defineCommand, type Invocation } from "./command.ts";
import { commands } from "./commands.ts";
import type { Options } from "./config.ts";
import { EXIT, type ExitCode } from "./exit-codes.ts";
import { integer, oneOf, option, port, shared, text, texts, toggle } from "./options.ts";

let ran: Invocation<Options> | undefined;
let outcome: () => Promise<ExitCode> = async () => EXIT.done;

const options = {
  port: option(port, "port"),
  store: option(oneOf(["embedded", "cluster"]), "kind of store", "embedded"),
  reason: option(text("TEXT"), "why"),
  method: option(text("METHOD"), "method", "GET", "X"),
  header: option(texts("K: V"), "header", [], "H"),
  weight: option(integer("N", -10, 256), "weight", 100),
  wait: option(toggle, "wait", false),
  noGit: option(toggle, "no repository", false),
  version: option(text("VERSION"), "version of the instance"),
};

function command(name: string, more: Partial<Command> = {}): Command {
  return {
    ...defineCommand({
      name,
      summary: `does ${name}`,
      options,
      async run(invocation) {
        ran = invocation;
        return outcome();
      },
    }),
    ...more,
  };
}

const groups = [
  {
    heading: "Programs:",
    commands: [
      command("atlas"),
      command("serve", {
        acceptsRest: "COMMAND [ARG…]",
        arguments: [{ name: "DIR", describe: "where", optional: true }],
      }),
    ],
  },
  {
    heading: "For operators:",
    commands: [
      command("why", { arguments: [{ name: "SERVICE", describe: "which", choices: ["identity", "billing"] }] }),
      command("settings get", { arguments: [{ name: "SERVICE", describe: "which" }] }),
      command("settings set", {
        arguments: [
          { name: "SERVICE", describe: "which" },
          { name: "KEY=VALUE", describe: "what", variadic: true, optional: true },
        ],
        examples: ["smartstack settings set identity A=1"],
      }),
      command("agents"),
      command("agents forget", { arguments: [{ name: "HOST", describe: "which" }] }),
    ],
  },
];
const smartstack = (...argv: string[]): Promise<Captured> => capture(argv, groups);

afterEach(() => {
  ran = undefined;
  outcome = async () => EXIT.done;
  delete process.env.SMARTSTACK_WAIT;
});

describe("help", () => {
  test("names the only words that an argument can be", async () => {
    expect((await capture(["print", "--help"])).stdout).toContain("what to print: units, template, config");
    expect((await capture(["completion", "--help"])).stdout).toContain("which one: bash, zsh, fish");
  });

  test("stands on standard output and ends with 0, by flag and by word", async () => {
    const { code, stdout, stderr } = await smartstack("--help");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain("For operators:\n  why ");
    expect(await smartstack("help")).toEqual({ code, stdout, stderr });
    const why = await smartstack("why", "--help");
    expect(why).toMatchObject({
      code: 0,
      stderr: "",
      stdout: expect.stringContaining("Usage: smartstack why SERVICE"),
    });
    expect(await smartstack("help", "why")).toEqual(why);
    expect((await smartstack("settings", "set", "-h")).stdout).toContain(
      "Usage: smartstack settings set SERVICE [KEY=VALUE…]",
    );
  });

  test("without any command it is an error: standard error, 2", async () => {
    const { code, stdout, stderr } = await smartstack();
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain("Usage: smartstack COMMAND [options]");
    expect(await smartstack("settings")).toMatchObject({ code: 2, stdout: "", stderr: expect.stringContaining("set") });
  });

  test("names defaults, arguments, examples and where values come from", async () => {
    const { stdout } = await smartstack("settings", "set", "--help");
    expect(stdout).toMatch(/--weight <N> +weight \(default 100\)/);
    expect(stdout).toContain("smartstack settings set identity A=1");
    expect(stdout).toContain("SMARTSTACK_LOG_LEVEL");
    expect(stdout).not.toContain("undefined");
  });

  for (const { name } of commands) {
    test(`of ${name} fits in 100 columns and every option has its line`, async () => {
      const { code, stdout } = await capture([...name.split(" "), "--help"]);
      expect(code).toBe(0);
      expect(stdout.split("\n").filter((line) => line.length > 100)).toEqual([]);
      for (const key of Object.keys(commands.find((other) => other.name === name)?.options ?? {}))
        expect(stdout).toContain(`--${key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`);
    });
  }
});

test("--version is the version, and only in front: behind a command it is the command's", async () => {
  expect(await smartstack("--version")).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) });
  await smartstack("atlas", "--version", "1.2");
  expect(ran?.values).toMatchObject({ version: "1.2" });
});

describe("flags", () => {
  test("may be written with a blank, an equals sign, or short and joined", async () => {
    await smartstack("atlas", "--port", "1", "--reason=a=b", "-XPOST", "-H", "A: b", "-HC: d");
    expect(ran?.values).toMatchObject({ port: 1, reason: "a=b", method: "POST", header: ["A: b", "C: d"] });
  });

  test("may stand before and behind arguments", async () => {
    await smartstack("settings", "set", "--wait", "identity", "A=1", "--port", "5", "B=2");
    expect(ran).toMatchObject({ args: ["identity", "A=1", "B=2"], values: { wait: true, port: 5 } });
  });

  test("take negative numbers, and text that begins with a dash behind an equals sign", async () => {
    await smartstack("atlas", "--weight", "-5", "--reason=--wait");
    expect(ran?.values).toMatchObject({ weight: -5, reason: "--wait", wait: false });
  });

  test("a switch can be turned off again when the environment turned it on", async () => {
    process.env.SMARTSTACK_WAIT = "1";
    await smartstack("atlas");
    expect(ran?.values).toMatchObject({ wait: true });
    await smartstack("atlas", "--wait=false");
    expect(ran?.values).toMatchObject({ wait: false });
    expect(await smartstack("atlas", "--wait=perhaps")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('wait (flag --wait): must be true or false, not "perhaps"'),
    });
  });

  test("that begin with no are switches like others", async () => {
    await smartstack("atlas", "--no-git");
    expect(ran?.values).toMatchObject({ noGit: true });
    await smartstack("atlas");
    expect(ran?.values).toMatchObject({ noGit: false });
  });
});

describe("a command line that makes no sense ends with 2, says what is meant, and runs nothing:", () => {
  const cases: readonly [string, string[], string][] = [
    ["an unknown command", ["atlsa"], "unknown command 'atlsa'"],
    ["a near miss of a command", ["atlsa"], "Did you mean atlas?"],
    ["an unknown command of a group", ["settings", "gte"], "unknown command 'gte'"],
    ["an option in front of the command", ["--port", "5", "atlas"], "Options stand behind the command"],
    [
      "unknown flags, all of them, and bad values with them",
      ["atlas", "--prot=5", "-z", "--weight", "x", "--zzz", "value"],
      [
        "4 values are not usable; nothing was started",
        "  prot (flag --prot): unknown flag --prot, did you mean --port?",
        "  z (flag -z): unknown flag -z",
        "  zzz (flag --zzz): unknown flag --zzz",
        "  weight (flag --weight): must be",
      ].join("\n"),
    ],
    ["a flag without its value at the end", ["atlas", "--port"], "'--port <PORT>' argument missing"],
    [
      "a flag without its value before another",
      ["atlas", "--reason", "--wait"],
      "--reason needs a value; if --wait is meant to be it, write --reason=--wait",
    ],
    ["an empty value for --config", ["atlas", "--config", "--wait"], "--config needs a value"],
    ["a missing argument", ["why"], "missing SERVICE"],
    ["an argument too many", ["agents", "forgte", "host1"], 'unexpected argument "forgte"'],
    [
      "an argument that is none of the choices",
      ["why", "identiti"],
      'SERVICE is one of identity, billing, not "identiti", did you mean identity?',
    ],
    ["something behind -- where nothing belongs", ["why", "identity", "--", "x"], "takes nothing behind --"],
    ["a bad value", ["atlas", "--port", "http"], 'port (flag --port): must be a port, 1 to 65535, not "http"'],
    ["several bad values", ["atlas", "--port", "0", "--weight", "x"], "2 values are not usable; nothing was started"],
    [
      "a missing configuration file",
      ["atlas", "--config", "/nowhere.yaml"],
      "config (flag --config): /nowhere.yaml cannot be read",
    ],
  ];
  for (const [what, argv, message] of cases) {
    test(what, async () => {
      const { code, stdout, stderr } = await smartstack(...argv);
      expect({ code, stdout, ran }).toEqual({ code: 2, stdout: "", ran: undefined });
      expect(stderr).toContain(message);
      expect(stderr).not.toContain("    at ");
      expect(stderr).toStartWith("smartstack: ");
    });
  }
});

test("a subcommand of a command is found, and so is the command itself", async () => {
  await smartstack("agents", "forget", "host1");
  expect(ran?.args).toEqual(["host1"]);
  await smartstack("agents");
  expect(ran?.args).toEqual([]);
});

test("what stands behind -- is the command's, untouched", async () => {
  await smartstack("serve", "--port", "5", "--", "python3", "app.py", "--port", "6", "--", "x");
  expect(ran).toMatchObject({ values: { port: 5 }, args: [], rest: ["python3", "app.py", "--port", "6", "--", "x"] });
  await smartstack("serve", "dir", "--");
  expect(ran).toMatchObject({ args: ["dir"], rest: [] });
  await smartstack("serve", "dir");
  expect(ran?.rest).toBeUndefined();
});

describe("the exit code", () => {
  const after = async (error: unknown): Promise<Captured> => {
    outcome = async () => {
      throw error;
    };
    return smartstack("atlas");
  };

  test("is the command's own", async () => {
    outcome = async () => EXIT.timedOut;
    expect(await smartstack("atlas")).toEqual({ code: 4, stdout: "", stderr: "" });
  });

  test("follows the code of a fault, told in one line with its hint", async () => {
    const codes = { unreachable: 3, not_applied: 4, timed_out: 4, usage: 2, config: 2, rejected: 1, conflict: 1 };
    for (const [code, exit] of Object.entries(codes)) {
      const { code: status, stderr } = await after(new Fault({ code, message: "what happened", hint: "What to do." }));
      expect([code, status, stderr]).toEqual([code, exit, "smartstack: what happened\nWhat to do.\n"]);
    }
  });

  test("of a bug is 1, and shows where it is", async () => {
    const { code, stderr } = await after(new TypeError("x is not a function"));
    expect(code).toBe(1);
    expect(stderr).toContain("x is not a function");
    expect(stderr).toContain("index.test.ts");
    expect((await after("a bare string")).code).toBe(1);
  });
});

test("every command of the program has its own flags only once, and no two commands share a name", () => {
  const names = commands.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
  for (const { name, options } of commands)
    expect([name, Object.keys(options).filter((key) => ["config", "help"].includes(key))]).toEqual([name, []]);
});

test("shared options are the same in every command, so that one variable means one thing", () => {
  for (const { name, options } of commands)
    for (const [key, sharedOption] of Object.entries(shared))
      if (key in options && key !== "realm")
        expect([name, key, options[key]?.kind.placeholder]).toEqual([name, key, sharedOption.kind.placeholder]);
});
