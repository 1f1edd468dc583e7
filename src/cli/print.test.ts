import { describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { capture } from "./capture.ts";
import { CONFIGURABLE } from "./reference.ts";

const root = resolve(import.meta.dir, "../..");
const file = (path: string): string => readFileSync(resolve(root, path), "utf8");
const UNITS = { atlas: "smartstack-atlas", sidecar: "smartstack-sidecar", serve: "smartstack-serve@" } as const;

describe("print", () => {
  test("gives each unit as it lies in config/, and all of them with their paths", async () => {
    const texts = Object.entries(UNITS).map(([name, unit]) => [name, file(`config/systemd/${unit}.service`)] as const);
    for (const [name, text] of texts)
      expect(await capture(["print", "units", name])).toEqual({ code: 0, stdout: text, stderr: "" });
    expect((await capture(["print", "units"])).stdout).toBe(texts.map(([, text]) => text).join("\n"));
  });

  test("gives the configuration of a program", async () => {
    for (const name of CONFIGURABLE)
      expect((await capture(["print", "config", name])).stdout).toBe(file(`config/${name}.yaml`));
  });

  test("gives HAProxy's configuration with every line explained", async () => {
    const { stdout } = await capture(["print", "template"]);
    expect(stdout).toBe(file("fixtures/haproxy/deck/haproxy.cfg"));
    expect(stdout).toContain("frontend http-in");
  });

  test("says what there is when the question makes no sense", async () => {
    for (const argv of [
      ["print"],
      ["print", "unit"],
      ["print", "config"],
      ["print", "config", "gen"],
      ["print", "template", "atlas"],
    ])
      expect([argv, (await capture(argv)).code]).toEqual([argv, 2]);
  });
});

describe("a unit", () => {
  for (const unit of Object.values(UNITS)) {
    const text = file(`config/systemd/${unit}.service`);
    const settings = text.split("\n").flatMap((line) => (/^[A-Z]/.test(line) ? [line] : []));

    test(`${unit}: says in its first line where it goes, and runs the binary from where that says`, () => {
      expect(text).toStartWith(`# /etc/systemd/system/${unit}.service`);
      expect(settings.filter((line) => line.startsWith("ExecStart="))).toEqual([
        expect.stringMatching(/^ExecStart=\/usr\/local\/bin\/smartstack (atlas|sidecar|serve) /),
      ]);
    });

    test(`${unit}: is hardened, but not so that JavaScript cannot be compiled`, () => {
      expect(settings).toContain("NoNewPrivileges=yes");
      expect(settings.filter((line) => line.startsWith("MemoryDenyWriteExecute"))).toEqual([]);
      expect(settings).toContain("Restart=always");
    });

    test(`${unit}: names options that there are`, async () => {
      const { stdout } = await capture([unit.replace("smartstack-", "").replace("@", ""), "--help"]);
      for (const line of settings) {
        const variable = /^Environment=SMARTSTACK_([A-Z_]+)=/.exec(line)?.[1];
        if (variable !== undefined) expect(stdout).toContain(`--${variable.toLowerCase().replaceAll("_", "-")} `);
      }
    });
  }

  test("runs as root nowhere, and gives each service a user of its own", () => {
    for (const unit of Object.values(UNITS)) {
      const text = file(`config/systemd/${unit}.service`);
      expect(text).toMatch(/^CapabilityBoundingSet=$/m);
      expect(text).toMatch(/^(DynamicUser=yes|User=smartstack)$/m);
    }
    // without it systemd calls the user of every instance by the name of the template: all services would share one
    expect(file("config/systemd/smartstack-serve@.service")).toMatch(/^User=svc-%i$/m);
  });

  test("of the sidecar leaves HAProxy alone when the sidecar ends", () => {
    expect(file("config/systemd/smartstack-sidecar.service")).toMatch(/^KillMode=process$/m);
    expect(file("config/systemd/smartstack-sidecar.service")).not.toMatch(/^PrivateTmp=/m);
  });

  test("is understood by systemd", async () => {
    const directory = mkdtempSync(join(tmpdir(), "smartstack-units-"));
    try {
      const paths = Object.values(UNITS).map((unit) => {
        const path = join(directory, unit.endsWith("@") ? `${unit}identity.service` : `${unit}.service`);
        // the binary is not installed where the units look for it
        writeFileSync(
          path,
          file(`config/systemd/${unit}.service`).replaceAll("/usr/local/bin/smartstack", "/bin/true"),
        );
        return path;
      });
      const { exitCode, stdout, stderr } = await Bun.$`systemd-analyze verify --man=no ${paths}`.quiet().nothrow();
      expect([exitCode, stdout.toString(), stderr.toString()]).toEqual([0, "", ""]);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
