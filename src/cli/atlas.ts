import { formatAddress } from "../core/lib/address.ts";
import type { StoreConfig } from "../atlas/stores.ts";
import { isLoopback } from "../core/model/names.ts";
import { defineCommand } from "./command.ts";
import { ConfigError } from "../core/lib/config-error.ts";
import { formatSource } from "./config.ts";
import { EXIT } from "./exit-codes.ts";
import { runProgram } from "./lifecycle.ts";
import { hostPort, option, path, shared, toggle } from "./options.ts";
import { storeConfig, storeOptions } from "./store-options.ts";

export const atlas = defineCommand({
  name: "atlas",
  summary: "run Atlas, the registry of services and instances",
  examples: [
    "smartstack atlas",
    "smartstack atlas --listen 127.0.0.1:7400 --data-dir ./atlas-data",
    "smartstack atlas --listen 10.0.0.1:7400 --token-file tokens --tls-cert a.pem --tls-key a.key",
    "smartstack atlas --store cluster --zookeeper zk1:2181,zk2:2181 --dynamodb-region us-east-1",
  ],
  options: {
    listen: option(hostPort, "address of the HTTP API; port 0 takes a free one", { host: "127.0.0.1", port: 7400 }),
    realm: shared.realm,
    ...storeOptions,
    tokenFile: option(
      path(),
      "tokens that may be shown, a line each: ROLE NAME SHA256HEX [HOST]; smartstack token makes it",
    ),
    peerTokenFile: option(
      path(),
      "what replicas of Atlas show each other: a line with one plain token, the same for all",
    ),
    tlsCert: option(path(), "certificate of this Atlas and what leads to its authority, PEM"),
    tlsKey: option(path(), "key of that certificate, PEM"),
    tlsCa: option(path(), "certificate authority of the other replicas, PEM"),
    insecure: option(
      toggle,
      "let --listen go beyond loopback without tokens: anybody who reaches the port may write",
      false,
    ),
    logLevel: shared.logLevel,
    logFormat: shared.logFormat,
  },
  async run({ values, sources }) {
    const { listen, realm } = values;
    const store = storeConfig(realm, { values, sources });
    if (!("kind" in store)) throw new ConfigError(store);
    const { secretFiles } = await import("./secrets.ts");
    const secrets = secretFiles(values, sources);
    const isOpen = !isLoopback(listen.host);
    if (isOpen && secrets.tokens === undefined && !values.insecure) {
      throw new ConfigError([
        {
          key: "listen",
          source: formatSource(sources.listen),
          message: `${formatAddress(listen)} is open to other machines, and without tokens anybody there may write; give --token-file (and --tls-cert with --tls-key, so that nobody reads the tokens on their way), listen on 127.0.0.1, or say --insecure if the network is yours alone`,
        },
      ]);
    }
    if (store.kind === "cluster" && secrets.tokens !== undefined && secrets.peerTokens === undefined) {
      throw new ConfigError([
        {
          key: "token-file",
          source: formatSource(sources.tokenFile),
          message:
            "in a cluster the replicas need a token for each other: give --peer-token-file too, the same for all (openssl rand -hex 32 makes one)",
        },
      ]);
    }
    const { startAtlas } = await import("../atlas/atlas.ts");
    const { createLogger } = await import("../core/lib/logger.ts");
    const logger = createLogger({ name: "atlas", level: values.logLevel, format: values.logFormat });
    if (isOpen && secrets.tokens === undefined) logger.warn("no tokens: anybody who reaches this port may write");
    else if (isOpen && secrets.certificate === undefined) {
      logger.warn("no TLS: whoever sees the network's traffic can read the tokens; give --tls-cert and --tls-key");
    }
    const fault = await runProgram(
      async () => {
        const running = await startAtlas({ listen, realm, store, secrets, advertise: values.advertise }, { logger });
        const { url } = running;
        logger.info({ url, realm, store }, `Atlas is ready at ${url}, realm ${realm}, ${placeOf(store)}`);
        return running;
      },
      { onHangup: (running) => running.reload() },
    );
    if (fault !== undefined) throw fault;
    logger.info("Atlas has stopped");
    return EXIT.done;
  },
});

function placeOf(store: StoreConfig): string {
  return store.kind === "embedded"
    ? `data in ${store.dataDir}`
    : `in ZooKeeper ${store.zookeeper} and the DynamoDB table ${store.dynamodb.table}`;
}
