// The import rule of docs/architecture.md as lint: main → cli → programs → core parts → core/model → core/lib.
// src/e2e/boundaries.test.ts plants a violation of each line here and expects it to be caught.
import { defineConfig } from "oxlint";

const PROGRAMS = ["atlas", "sidecar", "serve", "gen"];
const PARTS = ["registry", "haproxy", "client", "service", "api"];

const AWS = { regex: "^@aws-sdk/", message: "only core/registry/dynamodb*.ts knows the AWS SDK" };
const ZOOKEEPER = {
  regex: "^node-zookeeper-client",
  message: "only core/registry/zookeeper*.ts knows the ZooKeeper client",
};
const VENDORS = [AWS, ZOOKEEPER];

type Pattern = { regex: string; message: string };
const folder = (names: string[], message: string): Pattern => ({
  regex: `^\\.{1,2}/(.*/)?(${names.join("|")})/`,
  message,
});
const main: Pattern = { regex: "/main\\.ts$", message: "nothing imports main.ts: it only starts the command line" };
const forbid = (files: string[], patterns: Pattern[]) => ({
  files,
  rules: { "no-restricted-imports": ["error", { patterns }] as ["error", { patterns: Pattern[] }] },
});

const part = (name: string, allowed: string[] = [], files = `src/core/${name}/**`, vendors = VENDORS) =>
  forbid(
    [files],
    [
      main,
      folder(["cli", ...PROGRAMS], `core/${name} is a library: it never imports a program or the command line`),
      folder(
        PARTS.filter((other) => other !== name && !allowed.includes(other)),
        "a part never imports another part: they meet in the program that wires them (one exception: service → client)",
      ),
      ...vendors,
    ],
  );

const program = (name: string) =>
  forbid(
    [`src/${name}/**`],
    [
      main,
      {
        regex: `^\\.\\./(\\.\\./)?(cli|${PROGRAMS.filter((other) => other !== name).join("|")})/`,
        message: "a program never imports another program or the command line: cli wires programs",
      },
      ...VENDORS,
    ],
  );

export default defineConfig({
  plugins: ["typescript", "unicorn", "import", "promise", "node", "oxc"],
  categories: { correctness: "error", suspicious: "error", perf: "error" },
  options: { typeAware: true, denyWarnings: true },
  ignorePatterns: ["dist", ".cache", "node_modules", "fixtures"],
  rules: {
    "typescript/no-explicit-any": "error",
    "typescript/no-floating-promises": "error",
    "typescript/no-misused-promises": "error",
    "typescript/switch-exhaustiveness-check": ["error", { considerDefaultExhaustiveForUnions: true }],
    "typescript/consistent-type-imports": "error",
    "no-empty": ["error", { allowEmptyCatch: false }],
    eqeqeq: "error",
    "node/no-process-env": "error",
    // in order on purpose: a loop that awaits is how this project writes a sequence
    "no-await-in-loop": "off",
    "no-shadow": "off",
    "unicorn/no-array-sort": "off",
    "unicorn/consistent-function-scoping": "off",
    "unicorn/no-array-reverse": "off",
    "typescript/no-unsafe-type-assertion": "off",
    "import/no-unassigned-import": "off",
    "require-await": "off",
    // tsc knows better: an exhaustive switch returns everywhere
    "typescript/consistent-return": "off",
  },
  overrides: [
    forbid(
      ["src/core/lib/**"],
      [
        {
          regex: "^\\.\\./",
          message: "core/lib stands alone: everything may import it, it imports nothing of ours",
        },
        ...VENDORS,
      ],
    ),
    forbid(
      ["src/core/model/**"],
      [
        main,
        folder(["cli", ...PROGRAMS, ...PARTS], "core/model is pure: schemas and functions, it imports core/lib only"),
        ...VENDORS,
      ],
    ),
    // the one file of core/lib that looks outside: the version stands in package.json alone
    forbid(["src/core/lib/version.ts"], VENDORS),
    part("registry"),
    part("haproxy"),
    part("client"),
    part("api"),
    part("service", ["client"]),
    part("registry", [], "src/core/registry/dynamodb*.ts", [ZOOKEEPER]),
    part("registry", [], "src/core/registry/zookeeper*.ts", [AWS]),
    ...PROGRAMS.map(program),
    forbid(["src/cli/**"], [main, ...VENDORS]),
    {
      // who may read the environment: the command line, the two libraries that run inside other people's programs, tests
      files: [
        "src/main.ts",
        "src/cli/config.ts",
        "src/core/client/**",
        "src/core/service/**",
        "src/e2e/**",
        "scripts/**",
        "**/*.test.ts",
      ],
      rules: { "node/no-process-env": "off" },
    },
  ],
});
