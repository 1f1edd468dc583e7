// The real servers that the cluster store runs against, as scripts/setup --test brought them.
import { writeFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { connect } from "node:net";
import { join, resolve } from "node:path";
import { eventually, type Spawned, type World } from "./harness.ts";

const DYNAMODB = resolve(import.meta.dir, "../../.cache/dynamodb");

/** What these parts need of a scenario: a suite that shares servers between its tests has no whole one. */
export type Place = Pick<World, "directory" | "port" | "spawn">;

/** One that runs, or ran, somewhere: started there again it has its data. */
export type ZooKeeperPlace = { readonly port: number; readonly directory?: string };

/** Starts one ZooKeeper server; resolves when it serves. @param place @default a free port, and a directory named after it */
export async function startZooKeeper(
  world: Place,
  place?: ZooKeeperPlace,
): Promise<Required<ZooKeeperPlace> & { address: string; process: Spawned }> {
  const plan = await planNode(world, 1, place);
  const node = await startNode(world, plan, []);
  await serving([node]);
  return { port: plan.port, directory: plan.directory, address: node.address, process: node.process() };
}

/** One server of an ensemble. */
export type ZooKeeperNode = {
  /** `HOST:PORT` for clients. */
  readonly address: string;
  /** Where its log and snapshots lie. */
  readonly dataDir: string;
  process(): Spawned;
  /** kill -9; its data stays. */
  kill(): Promise<void>;
  /** Starts it again; see `Ensemble.serving`. */
  start(): void;
  /** SIGSTOP and SIGCONT: it accepts connections and says nothing. */
  pause(): void;
  resume(): void;
  /** Undefined while it does not serve. */
  role(): Promise<"leader" | "follower" | "standalone" | undefined>;
};

export type Ensemble = {
  /** `HOST:PORT,…`, as Atlas is given it. */
  readonly servers: string;
  readonly nodes: readonly ZooKeeperNode[];
  /** Resolves when all nodes serve, or those given. */
  serving(nodes?: readonly ZooKeeperNode[]): Promise<void>;
  leader(): Promise<ZooKeeperNode>;
};

/** Starts ZooKeeper nodes on loopback that know each other; resolves when all of them serve. Sessions last 1 to 10 s. */
export async function startZooKeeperEnsemble(world: Place, size: number): Promise<Ensemble> {
  const nodes = await Promise.all(Array.from({ length: size }, (_, index) => planNode(world, index + 1)));
  const members = nodes.map(({ id, peerPort, electionPort }) => `server.${id}=127.0.0.1:${peerPort}:${electionPort}`);
  const started = await Promise.all(nodes.map((node) => startNode(world, node, size === 1 ? [] : members)));
  await serving(started);
  return {
    servers: started.map(({ address }) => address).join(),
    nodes: started,
    serving: (wanted = started) => serving(wanted),
    leader: () =>
      eventually("there is a leader", async () => {
        const roles = await Promise.all(started.map((node) => node.role()));
        const leader = started[roles.findIndex((role) => role === "leader" || role === "standalone")];
        if (leader === undefined) throw new Error("there is none");
        return leader;
      }),
  };
}

async function serving(nodes: readonly ZooKeeperNode[]): Promise<void> {
  const all = async (): Promise<void> => {
    const roles = await Promise.all(nodes.map((node) => node.role()));
    if (roles.includes(undefined)) throw new Error(`the nodes are ${roles.map((role) => role ?? "away").join()}`);
  };
  await eventually("ZooKeeper serves", all, 30_000);
}

type NodePlan = Required<ZooKeeperPlace> & {
  readonly id: number;
  readonly peerPort: number;
  readonly electionPort: number;
};

async function planNode(world: Place, id: number, place?: ZooKeeperPlace): Promise<NodePlan> {
  const port = place?.port ?? (await world.port());
  const directory = place?.directory ?? join(world.directory, `zookeeper-${port}`);
  await mkdir(directory, { recursive: true });
  return { id, port, peerPort: await world.port(), electionPort: await world.port(), directory };
}

async function startNode(world: Place, plan: NodePlan, members: readonly string[]): Promise<ZooKeeperNode> {
  const { id, port, directory } = plan;
  const dataDir = join(directory, "data");
  const configuration = join(directory, "zoo.cfg");
  const lines = [
    "tickTime=500",
    "initLimit=20",
    "syncLimit=4",
    `dataDir=${dataDir}`,
    `clientPort=${port}`,
    "clientPortAddress=127.0.0.1",
    "maxClientCnxns=0",
    "admin.enableServer=false",
    "4lw.commands.whitelist=srvr,ruok",
    ...members,
  ];
  await mkdir(dataDir, { recursive: true });
  await Bun.write(configuration, `${lines.join("\n")}\n`);
  const launch = (): Spawned => {
    // a wiped node forgets its number as well
    writeFileSync(join(dataDir, "myid"), String(id));
    return world.spawn(
      [
        "java",
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dzookeeper.preAllocSize=1024",
        "-cp",
        "/usr/share/java/zookeeper.jar",
        "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        configuration,
      ],
      { name: `ZooKeeper :${port}` },
    );
  };
  let process = launch();
  return {
    address: `127.0.0.1:${port}`,
    dataDir,
    process: () => process,
    async kill() {
      process.signal("SIGKILL");
      await process.exited;
    },
    start() {
      process = launch();
    },
    pause: () => process.signal("SIGSTOP"),
    resume: () => process.signal("SIGCONT"),
    async role() {
      const answer = await ask(port, "srvr").catch(() => "");
      return /^Mode: (leader|follower|standalone)$/m.exec(answer)?.[1] as
        | "leader"
        | "follower"
        | "standalone"
        | undefined;
    },
  };
}

/** @default an in-memory database on a free port */
export type DynamoDbPlace = {
  readonly port?: number;
  /** Keeps the data here, so that they outlive the process. */
  readonly directory?: string;
};

/** The command line of Amazon's DynamoDB Local. It listens on every address. */
export function dynamoDbCommand(port: number, directory?: string): readonly string[] {
  return [
    "java",
    "-Xmx256m",
    `-Djava.library.path=${join(DYNAMODB, "DynamoDBLocal_lib")}`,
    "-jar",
    join(DYNAMODB, "DynamoDBLocal.jar"),
    ...(directory === undefined ? ["-inMemory"] : ["-dbPath", directory]),
    "-sharedDb",
    "-disableTelemetry",
    "-port",
    String(port),
  ];
}

/** Starts Amazon's DynamoDB Local; resolves when it answers. */
export async function startDynamoDb(
  world: Place,
  place: DynamoDbPlace = {},
): Promise<{ endpoint: string; process: Spawned }> {
  const port = place.port ?? (await world.port());
  if (place.directory !== undefined) await mkdir(place.directory, { recursive: true });
  const process = world.spawn(dynamoDbCommand(port, place.directory), { name: `DynamoDB Local :${port}` });
  const endpoint = `http://127.0.0.1:${port}`;
  await eventually(
    "DynamoDB Local answers",
    async () => {
      // it refuses an unsigned request with 400: that is an answer
      const response = await fetch(endpoint, { signal: AbortSignal.timeout(2_000) });
      await response.text();
      if (response.status !== 400) throw new Error(`status ${response.status}`);
    },
    30_000,
  );
  return { endpoint, process };
}

/** One of ZooKeeper's four-letter words. */
function ask(port: number, word: string): Promise<string> {
  return new Promise((resolveAnswer, reject) => {
    const socket = connect(port, "127.0.0.1", () => socket.write(word));
    let answer = "";
    socket.setEncoding("utf8");
    socket.on("data", (chunk: string) => {
      answer += chunk;
    });
    socket.on("end", () => resolveAnswer(answer));
    socket.on("error", reject);
    socket.setTimeout(2_000, () => socket.destroy(new Error("no answer within 2 s")));
  });
}
