// What must be there before the registry can be: the chroot, the directories, and the name of the realm that they are of.
import { errorCode, Fault } from "../lib/errors.ts";
import type { ZooKeeperClient } from "./zookeeper-client.ts";
import { GENERATION } from "./zookeeper-nodes.ts";
import type { Servers } from "./zookeeper-session.ts";

/** The data of this directory, which nothing else needs, names the realm. */
const REALM = "/hosts";

/** Makes what is missing. Other replicas may do the same at the same time. @throws Fault of ZooKeeper */
export async function makeDirectories(
  client: ZooKeeperClient,
  paths: readonly string[],
  realm: string,
  generation: number,
): Promise<void> {
  for (const path of paths) {
    const data = path === REALM ? realm : path === GENERATION ? String(generation) : "";
    try {
      await client.commit([{ kind: "create", path, data }]);
    } catch (error) {
      if (errorCode(error) === "no_node") await client.makeChroot();
      else if (errorCode(error) !== "node_exists") throw error;
    }
  }
}

/**
 * Two realms in one place would be one: test instances would serve production.
 * @throws Fault `store_realm` when it is another's
 */
export async function claimRealm(client: ZooKeeperClient, realm: string, { chroot }: Servers): Promise<void> {
  const { data, stat } = await client.getData(REALM);
  const owner = data.trim();
  if (owner === realm) return;
  if (owner === "") {
    // somebody made the directory by hand
    await client.commit([{ kind: "set", path: REALM, data: realm, version: stat.version }]);
    return;
  }
  throw new Fault({
    code: "store_realm",
    message: `${chroot}${REALM} in ZooKeeper belongs to the realm ${owner}, not ${realm}`,
    hint: `Give every realm a chroot of its own: --zookeeper HOST:PORT,…/${realm}.`,
  });
}

export function chrootMissing({ hosts, chroot }: Servers): Fault {
  const [host = ""] = hosts.split(",");
  const levels = chroot.split("/").slice(1);
  const creates = levels.map((_, index) => `create /${levels.slice(0, index + 1).join("/")}`);
  const command =
    creates.length === 1
      ? `zkCli.sh -server ${host} ${creates[0]}`
      : `printf '${creates.join("\\n")}\\n' | zkCli.sh -server ${host}`;
  return new Fault({
    code: "store_chroot",
    message: `the chroot ${chroot} does not exist in ZooKeeper (${hosts})`,
    hint: `If it is not mistyped, make it: ${command}`,
  });
}
