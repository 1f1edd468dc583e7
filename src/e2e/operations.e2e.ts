// docs/operations.md is run as it is printed: every block, in the page's order, as root on three hosts.
//
// Real: the commands, their paths, addresses and units; Debian's systemd as process 1 of each host; Atlas, sidecars, HAProxy and
// services. Standing in: a host is a set of namespaces on this machine (hosts.ts), its HAProxy is this machine's package.
import { expect } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { eventually, type Finished, scenario } from "./harness.ts";
import { type Host, startHosts } from "./hosts.ts";
import { normal, printed, type Step, stepsOf } from "./page.ts";

const HOSTS = { host001: "10.0.0.1", host002: "10.0.0.2", host003: "10.0.0.3" };

/** Commands that only look: what they show may take a moment to be so, as for whoever reads the page. */
const LOOKS =
  /^(?:smartstack (?:status|services|agents(?! forget)|why|audit|call|settings get) ?|curl |systemctl (?:is-active|list-timers) |journalctl |cat |ls )/;
const PATIENCE_MS = 20_000;

scenario(
  "every block of docs/operations.md is run, and prints what the page says",
  async (world) => {
    const page = await readFile(join(import.meta.dir, "../../docs/operations.md"), "utf8");
    const steps = stepsOf(page, Object.keys(HOSTS));
    const { hosts } = await startHosts(world, HOSTS);
    const hostOf = (name: string): Host => {
      const found = hosts.find((one) => one.name === name);
      if (found === undefined) throw new Error(`there is no ${name}`);
      return found;
    };
    const requests = await load(hostOf("host003"));
    for (const step of steps) {
      try {
        await perform(step, hostOf);
      } catch (error) {
        for (const host of hosts) {
          const { stdout } = await host.run("journalctl --no-pager --output cat --lines 30 --unit 'smartstack-*'");
          console.error(`--- journal of ${host.name}\n${stdout}`);
        }
        throw new Error(`docs/operations.md:${step.line}`, { cause: error });
      }
    }
    const { sent, failed } = await requests();
    expect([sent > 50, failed]).toEqual([true, []]);
    expect(steps.length).toBeGreaterThan(20);
  },
  180_000,
);

/**
 * Requests for identity by a client that never repeats one, ten a second, from the first that is answered until the page ends:
 * whatever the page does, it says of none that it fails.
 */
async function load(host: Host): Promise<() => Promise<{ readonly sent: number; readonly failed: readonly string[] }>> {
  const curl = `curl -s -m 5 -o /dev/null -w '%{http_code}' -H 'Runscope-Service: identity' http://localhost:4000/livez`;
  const loop = `while sleep 0.1; do echo "$(date +%T.%3N) $(${curl})" >> /tmp/requests; done`;
  const { code } = await host.run(`setsid bash -c '${loop.replaceAll("'", String.raw`'\''`)}' > /dev/null 2>&1 &`);
  expect(code).toBe(0);
  return async () => {
    const lines = (await host.run("cat /tmp/requests")).stdout.trim().split("\n");
    const answered = lines.slice(lines.findIndex((line) => line.endsWith(" 200")));
    return { sent: answered.length, failed: answered.filter((line) => !line.endsWith(" 200")) };
  };
}

async function perform(step: Step, hostOf: (name: string) => Host): Promise<void> {
  if (step.kind === "example") return show(step, hostOf(step.host));
  const run = async (name: string): Promise<void> => {
    const { code, stdout, stderr } = await hostOf(name).run(`set -eo pipefail\n${step.script}`);
    expect([name, code, code === 0 ? "" : stdout + stderr]).toEqual([name, 0, ""]);
  };
  if (!step.inTurn) await Promise.all(step.hosts.map(run));
  else for (const name of step.hosts) await run(name);
}

async function show({ command, output }: Extract<Step, { kind: "example" }>, host: Host): Promise<void> {
  // as on a terminal, both streams
  const look = async (): Promise<void> => {
    const { stdout }: Finished = await host.run(`{ ${command}\n} 2>&1`);
    if (!printed(output, stdout)) expect(`$ ${command}\n${normal(stdout)}`).toBe(`$ ${command}\n${normal(output)}`);
  };
  await (LOOKS.test(command) ? eventually(`it prints what the page says`, look, PATIENCE_MS) : look());
}
