// Hosts for tests that need whole machines: real systemd, real addresses, a file system each, on one network that is nobody
// else's. Made of namespaces, so they need root on Linux. host.sh says what a host is.
import { expect } from "bun:test";
import { randomUUID } from "node:crypto";
import { readlink } from "node:fs/promises";
import { join } from "node:path";
import { BINARY, eventually, type Finished, type Spawned, type World } from "./harness.ts";

export type Host = {
  readonly name: string;
  readonly address: string;
  /** Runs a script of bash as root in /root, as after logging in; at most 60 s. */
  run(script: string): Promise<Finished>;
};

export type Hosts = {
  readonly hosts: readonly Host[];
  /** Starts a program of this machine that is none of a host's, on their network. */
  spawn(command: readonly string[], name: string): Spawned;
  /** Runs one to its end. */
  run(command: readonly string[]): Promise<Finished>;
};

/**
 * Resolves when every host has booted. All of them know each other by name.
 * @param names host → its address, all in one /24
 * @param others addresses of what is none of the hosts: a ZooKeeper, say
 */
export async function startHosts(
  world: World,
  names: Readonly<Record<string, string>>,
  others: readonly string[] = [],
): Promise<Hosts> {
  if (process.getuid?.() !== 0) throw new Error("hosts are made of namespaces: run this test as root");
  // whatever becomes of this process, they end with it
  const tied = ["setpriv", "--pdeathsig", "KILL"];
  const network = world.spawn([...tied, "unshare", "--net", "sleep", "infinity"], { name: "network" });
  const entered = ["nsenter", "--target", String(network.pid), "--net"];
  const must = async (command: readonly string[]): Promise<void> => {
    const { code, stdout, stderr } = await world.run(command);
    if (code !== 0) throw new Error(`${command.join(" ")}: ${stderr}${stdout}`);
  };
  const inside = (words: string): Promise<void> => must([...entered, "ip", ...words.split(" ")]);
  // before it is one of its own, it is this machine's
  const own = await readlink("/proc/self/ns/net");
  await eventually("the network is there", async () =>
    expect(await readlink(`/proc/${network.pid}/ns/net`)).not.toBe(own),
  );
  await inside("link add switch type bridge");
  await inside("link set switch up");
  await inside("link set lo up");
  for (const address of others) await inside(`address add ${address}/24 dev switch`);

  const known = Object.entries(names).map(([name, address]) => `${address} ${name}`);
  const start = async (name: string, address: string): Promise<Host> => {
    const pid = await boot(world, name, tied);
    const shell = ["env", "-i", "HOME=/root", "USER=root", "LANG=C.UTF-8"];
    const run = (script: string): Promise<Finished> =>
      world.run([
        "nsenter",
        "--target",
        String(pid),
        "--all",
        "--root",
        "--wd",
        ...shell,
        "bash",
        "-lc",
        `cd\n${script}`,
      ]);
    const cable = `link add ${name} netns ${network.pid} type veth peer name eth0 netns ${pid}`;
    await must(["ip", ...cable.split(" ")]);
    await inside(`link set ${name} master switch up`);
    const names = ["127.0.0.1 localhost", ...known].join("\\n");
    const set = await run(
      `ip address add ${address}/24 dev eth0 && ip link set eth0 up && printf '${names}\\n' > /etc/hosts`,
    );
    if (set.code !== 0) throw new Error(`${name} has no network: ${set.stderr}`);
    await eventually(`${name} has booted`, async () => {
      const { stdout } = await run("systemctl is-system-running");
      if (!/^(running|degraded)$/.test(stdout.trim())) throw new Error(`it is ${stdout}`);
    });
    return { name, address, run };
  };
  const hosts = await Promise.all(Object.entries(names).map(([name, address]) => start(name, address)));
  return {
    hosts,
    spawn: (command, name) => world.spawn([...tied, ...entered, ...command], { name }),
    run: (command) => world.run([...entered, ...command]),
  };
}

/** The process id of a new host's systemd. The host ends with the scenario. */
async function boot(world: World, name: string, tied: readonly string[]): Promise<number> {
  const directory = join(world.directory, name);
  const cgroup = `smartstack-${randomUUID()}`;
  const script = join(import.meta.dir, "host.sh");
  const command = ["unshare", "--mount", "bash", script, "outside", name, directory, cgroup, BINARY];
  const host = world.spawn([...tied, ...command], { name });
  world.defer(async () => {
    // unshare takes its child along, and that one all processes of its namespace
    host.signal("SIGKILL");
    await host.exited;
    // a control group can be removed where it is seen, and once nobody is in it
    const removal = `mount -t cgroup2 none "$1" && find "$1/$2" -depth -type d -exec rmdir {} +`;
    const again = async (): Promise<void> => {
      const { code, stderr } = await world.run([
        "unshare",
        "--mount",
        "sh",
        "-c",
        removal,
        "sh",
        world.directory,
        cgroup,
      ]);
      if (code !== 0) throw new Error(stderr);
    };
    await eventually(`the control group of ${name} is gone`, again);
  });
  return eventually(`${name} has a process 1`, async () => {
    const children = (await Bun.file(`/proc/${host.pid}/task/${host.pid}/children`).text()).trim();
    const comm = (await Bun.file(`/proc/${children}/comm`).text()).trim();
    if (comm !== "systemd") throw new Error(`it is ${comm}: ${host.output()}`);
    return Number(children);
  });
}
