import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fakeClock } from "../core/lib/clock.ts";
import { silentLogger } from "../core/lib/logger.ts";
import { putLocalSchema } from "../core/model/local.ts";
import { instanceOf, snapshotOf } from "./fixture.ts";
import { changeBetween, emptyView, preserve } from "./hold.ts";
import { putLocal } from "./local-instance.ts";
import { createStateWriter, type Kept, readState } from "./state-file.ts";

let directory = "";
let path = "";
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-"));
  path = join(directory, "state.json");
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const clock = fakeClock();
const before = snapshotOf(10, [instanceOf("identity/host1:5000"), instanceOf("identity/host2:5000")]);
const after = { ...before, revision: 11, services: {}, instances: [] };
const { view } = preserve(emptyView(before), changeBetween(before, after), "here", 7);
const local = putLocal(
  undefined,
  "billing",
  "here:6000",
  putLocalSchema.parse({ port: 6000, definition: { owner: "money" } }),
  { host: "here", address: "10.0.0.1", zone: "" },
  0,
);
const kept: Kept = { view, locals: new Map([[local.id, local]]), agents: 3, disabled: new Set([local.id]) };

async function write(): Promise<void> {
  const writer = createStateWriter(path, () => kept, clock, silentLogger);
  await writer.flush();
}

describe("the state on disk", () => {
  test("what was believed, held and registered is there after a restart, with fresh times", async () => {
    await write();
    const read = await readState(path, "local", clock, silentLogger);
    expect(read).toMatchObject({ agents: 3 });
    expect(read?.view?.snapshot).toEqual(view.snapshot);
    expect([...(read?.view?.holds.keys() ?? [])]).toEqual(["identity/host1:5000", "identity/host2:5000"]);
    expect(read?.view?.holds.get("identity/host1:5000")).toMatchObject({ doubt: "unexplained", since: 7, failures: 0 });
    expect(Object.keys(read?.view?.remembered ?? {})).toEqual(["identity"]);
    expect(read?.locals.get(local.id)).toEqual({ ...local, expiresAt: clock.now() + 30_000 });
  });

  test("nothing there is no error", async () => {
    expect(await readState(path, "local", clock, silentLogger)).toBeUndefined();
  });

  test.each([
    ["half a file", (text: string) => text.slice(0, text.length / 2)],
    ["an empty file", () => ""],
    ["another format", (text: string) => text.replace('"format":1', '"format":9')],
    ["another realm", (text: string) => text.replace('"realm":"local"', '"realm":"prod"')],
  ])("%s is kept aside and not believed", async (_, spoil) => {
    await write();
    const spoiled = spoil(await readFile(path, "utf8"));
    await writeFile(path, spoiled);
    expect(await readState(path, "local", clock, silentLogger)).toBeUndefined();
    const [name, ...more] = await readdir(directory);
    expect(more).toEqual([]);
    expect(name).toStartWith("state.json.unusable-");
    expect(await readFile(join(directory, name ?? ""), "utf8")).toBe(spoiled);
  });

  test("a file that cannot be read is an error, not an empty state", async () => {
    await mkdir(path);
    expect(await readState(path, "local", clock, silentLogger).catch((error: unknown) => error)).toMatchObject({
      code: "state_dir",
    });
  });

  test("many changes are few writes, at least a second apart", async () => {
    const time = fakeClock();
    let writes = 0;
    const writer = createStateWriter(
      path,
      () => {
        writes += 1;
        return kept;
      },
      time,
      silentLogger,
    );
    for (let change = 0; change < 40; change += 1) {
      writer.request();
      // the disk has its own time: the next write is planned when the one before has ended
      while (time.pending === 0) await Bun.sleep(1);
      await time.advance(50);
    }
    expect(writes).toBe(2);
    writer.stop();
    expect(time.pending).toBe(0);
  });

  test("what changes while a slow disk writes waits its turn, and is written", async () => {
    const time = fakeClock();
    let writes = 0;
    const writer = createStateWriter(
      path,
      () => {
        writes += 1;
        // the file is being written
        if (writes === 1) {
          writer.request();
          expect(time.pending).toBe(0);
        }
        return kept;
      },
      time,
      silentLogger,
    );
    writer.request();
    await time.advance(100);
    for (let turn = 0; turn < 500 && time.pending === 0; turn += 1) await Bun.sleep(1);
    await time.advance(900);
    expect(writes).toBe(1);
    await time.advance(200);
    expect(writes).toBe(2);
    writer.stop();
  });

  test("a disk that refuses is reported, and tried again", async () => {
    const time = fakeClock();
    const missing = join(directory, "later");
    const writer = createStateWriter(join(missing, "state.json"), () => kept, time, silentLogger);
    const until = async (check: () => boolean): Promise<void> => {
      for (let turn = 0; turn < 500 && !check(); turn += 1) await Bun.sleep(1);
    };
    writer.request();
    await time.advance(100);
    await until(() => writer.trouble !== undefined);
    expect(writer.trouble).toContain("ENOENT");
    await mkdir(missing);
    await time.advance(5_000);
    await until(() => writer.trouble === undefined);
    expect(writer.trouble).toBeUndefined();
    expect(await readdir(missing)).toEqual(["state.json"]);
  });
});
