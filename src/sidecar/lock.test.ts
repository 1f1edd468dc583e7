import { expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errorCode } from "../core/lib/errors.ts";
import { lockStateDirectory } from "./lock.ts";

async function inDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "smartstack-"));
  try {
    await body(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
const codeOf = (directory: string): Promise<string | undefined> =>
  lockStateDirectory(directory).then(
    (lock) => {
      lock.release();
      return undefined;
    },
    (error: unknown) => errorCode(error),
  );

test("the second one is refused until the first lets go", async () => {
  await inDirectory(async (directory) => {
    const lock = await lockStateDirectory(directory);
    expect(await codeOf(directory)).toBe("state_dir_in_use");
    lock.release();
    expect(await codeOf(directory)).toBeUndefined();
  });
});

test("kill -9 of the holder frees it", async () => {
  await inDirectory(async (directory) => {
    const script = `const { lockStateDirectory } = await import(${JSON.stringify(join(import.meta.dir, "lock.ts"))});
      await lockStateDirectory(${JSON.stringify(directory)}); console.log("locked"); setInterval(() => {}, 1000);`;
    const holder = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe" });
    const { value } = await holder.stdout.getReader().read();
    expect(new TextDecoder().decode(value).trim()).toBe("locked");
    expect(await codeOf(directory)).toBe("state_dir_in_use");
    holder.kill("SIGKILL");
    await holder.exited;
    expect(await codeOf(directory)).toBeUndefined();
  });
});

test("missing directories are made, a file in their place is an error", async () => {
  await inDirectory(async (directory) => {
    expect(await codeOf(join(directory, "a/b"))).toBeUndefined();
    await writeFile(join(directory, "file"), "");
    expect(await codeOf(join(directory, "file"))).toBe("state_dir");
  });
});

test("a directory that cannot be written is an error", async () => {
  // not even root makes a file there
  expect(await codeOf("/proc")).toBe("state_dir");
});
