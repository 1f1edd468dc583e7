import { expect, test } from "bun:test";
import { onceAgain } from "./dev.ts";

test("what --dev starts is never told --dev, however that was said", () => {
  for (const argv of [
    ["serve", "x", "--dev", "--port", "1"],
    ["serve", "x", "--dev=true", "--port", "1"],
  ])
    expect(onceAgain(argv, {}).argv).toEqual(["serve", "x", "--port", "1"]);
  // the environment goes before a configuration file
  expect(onceAgain([], { SMARTSTACK_DEV: "true", PATH: "/bin" }).environment).toEqual({
    SMARTSTACK_DEV: "false",
    PATH: "/bin",
  });
  expect(onceAgain(["serve", "--dev", "--", "vite", "--dev"], {}).argv).toEqual(["serve", "--", "vite", "--dev"]);
});
