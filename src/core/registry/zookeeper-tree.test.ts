import { expect, test } from "bun:test";
import { randomOf } from "../lib/random.fixture.ts";
import type { Op } from "./zookeeper-client.ts";
import { FakeZooKeeper, type Wire } from "./zookeeper.fixture.ts";
import { type Shape, type TreeNode, ZooKeeperTree } from "./zookeeper-tree.ts";

const leaf: Shape = { data: true, counts: true };
const instance: Shape = { data: true, counts: true, child: (name) => (name === "x" ? "is not known" : leaf) };
const roots: Readonly<Record<string, Shape>> = {
  hosts: { data: false, counts: true, child: () => ({ data: false, counts: true, child: () => instance }) },
  aside: { data: true, counts: false },
};

/** What is there, of what a mirror reads. */
function shown(find: (path: string) => string | undefined, paths: readonly string[]): string {
  return paths.map((path) => `${path}=${find(path) ?? ""}`).join(" ");
}

/** All paths of a mirror. */
function pathsOf(tree: ZooKeeperTree): readonly string[] {
  const below = (node: TreeNode | undefined): string[] =>
    node === undefined ? [] : [node.path, ...[...(node.children?.values() ?? [])].flatMap((child) => below(child))];
  return [...below(tree.find("/hosts")), ...below(tree.find("/aside"))].sort();
}

function mirror(server: FakeZooKeeper, onSettled: () => void = () => undefined) {
  const missing: string[] = [];
  const touched: string[] = [];
  let rewound = 0;
  const tree = new ZooKeeperTree({
    roots,
    onTouched: ({ path }) => touched.push(path),
    onSettled,
    onMissing: (path) => missing.push(path),
    onRewound: () => {
      rewound += 1;
    },
  });
  const connect = (): Wire => {
    const wire = server.connect((event) => tree.heard(event));
    tree.begin(wire);
    return wire;
  };
  return { tree, connect, missing, touched, rewound: () => rewound };
}

async function settle(wire: Wire): Promise<void> {
  while (wire.busy) {
    wire.look();
    await wire.receive();
  }
}

function prepared(): FakeZooKeeper {
  const server = new FakeZooKeeper();
  for (const path of ["/hosts", "/aside", "/hosts/web", "/hosts/web/a"])
    server.commit([{ kind: "create", path, data: "1" }]);
  return server;
}

test.each(Array.from({ length: 30 }, (_, seed) => [seed]))(
  "whenever no read is pending, the mirror is the tree of one moment, and two mirrors at one revision are equal (seed %d)",
  async (seed) => {
    const numbers = randomOf(seed);
    const random = (below: number): number => Math.floor(numbers(below));
    const server = prepared();
    for (const path of ["/hosts/s0", "/hosts/s1", "/hosts/s0/i0", "/hosts/s1/i1"]) {
      server.commit([{ kind: "create", path, data: "0" }]);
    }
    const moments = new Map<number, string>();
    const remember = (): void => {
      const paths = server.paths.filter((path) => !path.endsWith("/x"));
      moments.set(
        server.zxid,
        shown((path) => (/^\/hosts(\/\w+)?$/.test(path) ? "" : server.get(path)?.data), paths),
      );
    };
    remember();
    const byRevision = new Map<number, string>();
    let settled = 0;
    const mirrors = [1, 2].map(() => {
      const one = mirror(server, () => {
        settled += 1;
        const now = shown((path) => one.tree.find(path)?.data, pathsOf(one.tree));
        expect(now).toBe(moments.get(wire.known) ?? "no such moment");
        const { revision } = one.tree;
        const counted = now.replace(/ ?\/aside=\S*/, "");
        expect(counted).toBe(byRevision.get(revision) ?? counted);
        byRevision.set(revision, counted);
      });
      let wire = one.connect();
      return { tree: one.tree, rewound: one.rewound, wire: () => wire, reconnect: () => (wire = one.connect()) };
    });
    const change = (): readonly Op[] => {
      const service = `/hosts/s${random(2)}`;
      const node = `${service}/i${random(3)}`;
      const part = `${node}/${["enabled", "meta", "x"][random(3)]}`;
      const path = [service, node, node, node, part, part, part, part, "/aside"][random(9)] ?? node;
      const data = String(random(100));
      return [
        [{ kind: "create" as const, path, data }],
        [{ kind: "set" as const, path, data }],
        [{ kind: "remove" as const, path }],
        [
          { kind: "remove" as const, path },
          { kind: "create" as const, path, data },
        ],
        [
          { kind: "create" as const, path: node, data },
          { kind: "create" as const, path: `${node}/meta`, data },
        ],
      ][random(5)] as readonly Op[];
    };
    for (let step = 0; step < 3_000; step += 1) {
      const one = mirrors[random(2)];
      switch (random(6)) {
        case 0:
          if (random(3) > 0) break;
          try {
            server.commit(change().filter(({ kind, path }) => kind !== "remove" || path !== "/aside"));
            remember();
          } catch {
            // a change that is not possible now takes a place in the log all the same
            remember();
          }
          break;
        case 1:
        case 2:
          one?.wire().look();
          break;
        case 3:
          if (random(100) === 0) one?.reconnect();
          break;
        default:
          await one?.wire().receive();
      }
    }
    for (const one of mirrors) await settle(one.wire());
    expect(mirrors.map(({ tree }) => tree.settled)).toEqual([true, true]);
    expect(mirrors[0]?.tree.revision).toBe(mirrors[1]?.tree.revision as number);
    expect(settled).toBeGreaterThan(10);
    expect(mirrors.map(({ rewound }) => rewound())).toEqual([0, 0]);
  },
);

test("a node that changes while its read is on the way is read again, even if the news overtakes the answer", async () => {
  const server = prepared();
  const { tree, connect } = mirror(server);
  const wire = connect();
  await settle(wire);
  server.commit([{ kind: "set", path: "/hosts/web/a", data: "2" }]);
  await wire.receive();
  wire.look();
  server.commit([{ kind: "set", path: "/hosts/web/a", data: "3" }]);
  wire.overtake();
  await settle(wire);
  expect(tree.find("/hosts/web/a")?.data).toBe("3");
});

test("a node that was gone when it was read and listed again is read again, even if the list overtakes the answer", async () => {
  const server = prepared();
  const { tree, connect } = mirror(server);
  const wire = connect();
  await settle(wire);
  server.commit([{ kind: "remove", path: "/hosts/web/a" }]);
  await wire.receive();
  await wire.receive();
  wire.look();
  wire.look();
  server.commit([{ kind: "create", path: "/hosts/web/a", data: "2" }]);
  wire.look();
  wire.overtake();
  await settle(wire);
  expect(tree.find("/hosts/web/a")?.data).toBe("2");
});

test("replies of a connection that is gone change nothing", async () => {
  const server = prepared();
  const { tree, connect } = mirror(server);
  const old = connect();
  for (let step = 0; step < 3; step += 1) {
    old.look();
    await old.receive();
  }
  old.look();
  const wire = connect();
  await old.receive();
  expect(tree.settled).toBe(false);
  await settle(wire);
  expect(tree.settled).toBe(true);
});

test("a root that is missing is told, keeps everything from settling, and is found when it is there", async () => {
  const server = new FakeZooKeeper();
  server.commit([{ kind: "create", path: "/hosts", data: "" }]);
  const { tree, connect, missing } = mirror(server);
  const wire = connect();
  await settle(wire);
  expect([missing, tree.settled]).toEqual([["/aside"], false]);
  server.commit([{ kind: "create", path: "/aside", data: "" }]);
  tree.retry();
  await settle(wire);
  expect(tree.settled).toBe(true);
});

test("after a reconnect only what differs is touched; what was set back is told", async () => {
  const server = prepared();
  const { connect, touched, rewound } = mirror(server);
  await settle(connect());
  server.commit([{ kind: "set", path: "/hosts/web/a", data: "2" }]);
  touched.length = 0;
  await settle(connect());
  expect(touched).toEqual(["/hosts/web/a"]);
  expect(rewound()).toBe(0);
  const node = server.get("/hosts/web/a");
  if (node !== undefined) node.mzxid -= 1;
  await settle(connect());
  expect(rewound()).toBe(1);
});

test("children of no use are told with the reason, and forgotten when they go", async () => {
  const server = prepared();
  const { tree, connect } = mirror(server);
  const wire = connect();
  server.commit([{ kind: "create", path: "/hosts/web/a/x", data: "" }]);
  await settle(wire);
  expect([...tree.problems]).toEqual([["/hosts/web/a/x", "is not known"]]);
  server.commit([{ kind: "remove", path: "/hosts/web/a/x" }]);
  await settle(wire);
  expect(tree.problems.size).toBe(0);
  server.commit([{ kind: "create", path: "/hosts/web/a/x", data: "" }]);
  await settle(wire);
  server.commit([
    { kind: "remove", path: "/hosts/web/a/x" },
    { kind: "remove", path: "/hosts/web/a" },
  ]);
  await settle(wire);
  expect(tree.problems.size).toBe(0);
});
