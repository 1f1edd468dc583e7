// The real servers that the cluster store runs against, as scripts/setup --test brought them.
import { mkdir } from "node:fs/promises";
import { connect } from "node:net";
import { join, resolve } from "node:path";
import { eventually, type Spawned, type World } from "./harness.ts";

const DYNAMODB = resolve(import.meta.dir, "../../.cache/dynamodb");

/** Starts one ZooKeeper node on a free port; resolves when it serves. */
export async function startZooKeeper(world: World): Promise<{ address: string; process: Spawned }> {
  const port = await world.port();
  const directory = join(world.directory, `zookeeper-${port}`);
  await mkdir(directory, { recursive: true });
  const configuration = join(directory, "zoo.cfg");
  const lines = [
    "tickTime=500",
    `dataDir=${directory}`,
    `clientPort=${port}`,
    "clientPortAddress=127.0.0.1",
    "admin.enableServer=false",
    "4lw.commands.whitelist=srvr,ruok",
  ];
  await Bun.write(configuration, `${lines.join("\n")}\n`);
  const process = world.spawn(
    [
      "java",
      "-Xmx256m",
      "-cp",
      "/usr/share/java/zookeeper.jar",
      "org.apache.zookeeper.server.quorum.QuorumPeerMain",
      configuration,
    ],
    { name: `ZooKeeper :${port}` },
  );
  await eventually(
    "ZooKeeper says imok",
    async () => {
      const answer = await ask(port, "ruok");
      if (answer !== "imok") throw new Error(`it said "${answer}"`);
    },
    30_000,
  );
  return { address: `127.0.0.1:${port}`, process };
}

/** @default an in-memory database on a free port */
export type DynamoDbPlace = {
  readonly port?: number;
  /** Keeps the data here, so that they outlive the process. */
  readonly directory?: string;
};

/** Starts Amazon's DynamoDB Local; resolves when it answers. */
export async function startDynamoDb(
  world: World,
  place: DynamoDbPlace = {},
): Promise<{ endpoint: string; process: Spawned }> {
  const port = place.port ?? (await world.port());
  const data = place.directory === undefined ? ["-inMemory"] : ["-dbPath", place.directory];
  if (place.directory !== undefined) await mkdir(place.directory, { recursive: true });
  const process = world.spawn(
    [
      "java",
      "-Xmx256m",
      `-Djava.library.path=${join(DYNAMODB, "DynamoDBLocal_lib")}`,
      "-jar",
      join(DYNAMODB, "DynamoDBLocal.jar"),
      ...data,
      "-sharedDb",
      "-disableTelemetry",
      "-port",
      String(port),
    ],
    { name: `DynamoDB Local :${port}` },
  );
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
