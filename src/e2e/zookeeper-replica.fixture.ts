// A replica in a process of its own, to be stopped and continued: holds a lease and says when it sees again.
import { storeOn } from "./zookeeper-kit.ts";

const [, , servers = "", replica = ""] = process.argv;
const live = storeOn(servers, { replica });
await live.open();
await live.claimLease({ host: "host1", boot: "1", zone: "", version: "" });
live.onSight(() => console.log("sees again"));
console.log("holds");
