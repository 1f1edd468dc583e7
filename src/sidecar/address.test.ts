import { expect, test } from "bun:test";
import { networkInterfaces } from "node:os";
import { ownAddress } from "./address.ts";

// a machine with nothing but loopback has no other address to find
const external =
  Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .find(({ internal, family }) => !internal && family === "IPv4")?.address ?? "127.0.0.1";

test("with every Atlas on loopback everything is on one machine", async () => {
  expect(await ownAddress(["http://127.0.0.1:7400", "http://localhost:7401", "http://[::1]:7402"])).toBe("127.0.0.1");
});

test("else it is the address that packets to Atlas leave from", async () => {
  expect(await ownAddress(["http://127.0.0.1:7400", `http://${external}:7400`])).toBe(external);
});

test("an Atlas with an unknown name leaves the first address", async () => {
  expect(await ownAddress(["http://no-such-host.invalid:7400"])).toBe(external);
});
