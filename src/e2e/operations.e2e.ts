// docs/operations.md is run as it is printed: every block, in the page's order, as root on three hosts.
//
// Real: the commands, their paths, addresses and units; Debian's systemd as process 1 of each host; Atlas, sidecars, HAProxy,
// services, ZooKeeper, certificates. Standing in: a host is a set of namespaces on this machine (hosts.ts), and its packages are
// this machine's; Amazon's own DynamoDB Local is the region's DynamoDB, so Atlas's unit is told where that is; `apt-get` and `scp`
// are scripts that take the same words, since these hosts have no way out and no ssh.
import { expect } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { dynamoDbCommand } from "./parts.ts";
import { eventually, type Finished, scenario } from "./harness.ts";
import { type Host, type Hosts, startHosts } from "./hosts.ts";
import { normal, printed, type Step, stepsOf } from "./page.ts";

/** Where the region's DynamoDB stands. */
const DYNAMODB = { address: "10.0.0.100", port: 8000 };

/** What Atlas's unit is told besides the page: a role of the machine, and Amazon's name servers, would tell it. */
const REGION = `[Service]
Environment=SMARTSTACK_DYNAMODB_ENDPOINT=http://${DYNAMODB.address}:${DYNAMODB.port}
Environment=AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_EC2_METADATA_DISABLED=true
`;

/**
 * `apt-get install -y NAME…`: is it installed? And `scp FILE… HOST:DIRECTORY/`: tar over a socket that systemd listens on.
 */
const STAND_INS = `
cat > /usr/local/bin/apt-get <<'END'
#!/bin/bash
exec dpkg-query --show "\${@:3}"
END
cat > /usr/local/bin/scp <<'END'
#!/bin/bash
set -eo pipefail
[ "$1" = -q ] && shift
IFS=: read -r host directory <<< "\${@: -1}"
exec 3<> "/dev/tcp/$host/22"
tar --create --transform "s|^|\${directory#/}|" "\${@:1:$#-1}" >&3
cat <&3
END
chmod +x /usr/local/bin/{apt-get,scp}
cd /run/systemd/system
printf '[Socket]\nListenStream=22\nAccept=yes\n' > copies.socket
printf '[Service]\nExecStart=/bin/tar --extract --directory=/\nStandardInput=socket\n' > copies@.service
systemctl daemon-reload && systemctl start copies.socket
`;

const HOSTS = { host001: "10.0.0.1", host002: "10.0.0.2", host003: "10.0.0.3" };

/** Commands that only look: what they show may take a moment to be so, as for whoever reads the page. */
const LOOKS =
  /^(?:\w+=\S+ )*(?:smartstack (?:status|services|agents(?! forget)|why|audit|call|settings get) ?|curl |openssl s_client |systemctl (?:is-active|list-timers) |journalctl |cat |ls )/;
const PATIENCE_MS = 40_000;

scenario(
  "every block of docs/operations.md is run, and prints what the page says",
  async (world) => {
    const page = await readFile(join(import.meta.dir, "../../docs/operations.md"), "utf8");
    const steps = stepsOf(page, Object.keys(HOSTS));
    const fleet = await startHosts(world, HOSTS, [DYNAMODB.address]);
    const { hosts } = fleet;
    fleet.spawn(dynamoDbCommand(DYNAMODB.port), "DynamoDB Local");
    const hostOf = (name: string): Host => {
      const found = hosts.find((one) => one.name === name);
      if (found === undefined) throw new Error(`there is no ${name}`);
      return found;
    };
    await Promise.all(hosts.map((host) => prepare(host, STAND_INS)));
    const requests = await load(hostOf("host003"));
    for (const step of steps) {
      try {
        if (step.kind === "script" && step.script.includes("store: cluster")) await enterRegion(fleet);
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

async function prepare(host: Host, script: string): Promise<void> {
  const { code, stderr } = await host.run(`set -e\n${script}`);
  if (code !== 0) throw new Error(`${host.name}: ${stderr}`);
}

/** Gives the hosts a DynamoDB, from when the page makes use of one. */
async function enterRegion(fleet: Hosts): Promise<void> {
  const url = `http://${DYNAMODB.address}:${DYNAMODB.port}`;
  await eventually(
    "DynamoDB Local answers",
    async () => expect((await fleet.run(["curl", "-s", url])).code).toBe(0),
    30_000,
  );
  const place = "/etc/systemd/system/smartstack-atlas.service.d";
  await Promise.all(
    fleet.hosts.map((host) => prepare(host, `mkdir -p ${place}\ncat > ${place}/region.conf <<'END'\n${REGION}END`)),
  );
}

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
