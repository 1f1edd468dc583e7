// The contract of a store, on real ZooKeeper: one server, and an ensemble of three. The metadata half is SQLite's here.
import { afterAll, beforeAll } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fakeClock } from "../core/lib/clock.ts";
import { describeStoreContract, type StoreUnderTest } from "../core/registry/contract.ts";
import { createSqliteStores } from "../core/registry/sqlite.ts";
import { freshChroot, type Hand, openHand, type SharedZooKeeper, shareZooKeeper, storeOn } from "./zookeeper-kit.ts";

for (const size of [1, 3]) {
  let zookeeper: SharedZooKeeper;
  let hand: Hand;

  beforeAll(async () => {
    zookeeper = await shareZooKeeper(size);
    hand = await openHand(zookeeper.servers);
  }, 60_000);
  afterAll(async () => {
    await hand.close();
    await zookeeper.stop();
  });

  describeStoreContract(size === 1 ? "ZooKeeper, one server" : `ZooKeeper, ${size} servers`, async () => {
    const directory = await mkdtemp(join(tmpdir(), "smartstack-store-"));
    const servers = zookeeper.servers + (await freshChroot(hand));
    // removals are dated by ZooKeeper's clock, so the suite's begins there
    const clock = fakeClock(Date.now());
    const meta = createSqliteStores({ directory, realm: "local", clock });
    await meta.live.open();
    const open = async (): Promise<StoreUnderTest> => {
      const live = storeOn(servers, { clock });
      await live.open();
      return {
        live,
        meta: meta.meta,
        async reopen() {
          await live.close();
          return open();
        },
        async advance(ms) {
          await clock.advance(ms);
          await live.purge();
        },
        async dispose() {
          await live.close();
          await meta.live.close();
          await rm(directory, { recursive: true, force: true });
        },
      };
    };
    return open();
  });
}
