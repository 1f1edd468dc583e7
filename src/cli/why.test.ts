import { expect, test } from "bun:test";
import type { Why } from "../core/model/local.ts";
import { formatWhy } from "./why.ts";

const NOW = Date.parse("2026-01-02T12:00:00.000Z");
const server = (instance: string, haproxy: string, because: string) => ({
  instance,
  address: "10.0.0.1",
  port: 5004,
  haproxy,
  usable: haproxy !== "DRAIN",
  because,
});
const found: Why = {
  service: "identity",
  host: "host003",
  known: true,
  usable: 2,
  total: 3,
  servers: [
    server("host001:5004", "UP", "check 200, 3 ms"),
    server("host002:5004", "DRAIN", "disabled by ann, revision 48190"),
    server("host004:5004", "HELD UP", "expired in Atlas, our probe passes, 41 s"),
  ],
  revision: 48_213,
  generation: 7,
  atlas: { connected: true },
  lastReload: { at: "2026-01-02T09:00:00.000Z", reasons: ['service "ads" added'] },
  notes: [],
};

test("the answer looks as the design shows it", () => {
  expect(formatWhy(found, NOW)).toBe(
    `
host003 → identity: 2 of 3 usable
SERVER         HAPROXY   BECAUSE
host001:5004   UP        check 200, 3 ms
host002:5004   DRAIN     disabled by ann, revision 48190
host004:5004   HELD UP   expired in Atlas, our probe passes, 41 s
revision 48213 · Atlas connected · last reload 3 h ago: service "ads" added`.slice(1),
  );
});

test("a service that the host does not know, notes, and a sidecar alone", () => {
  const alone = {
    ...found,
    known: false,
    servers: [],
    atlas: { connected: false },
    lastReload: null,
    notes: ["Atlas was last heard 5 min ago"],
  };
  expect(formatWhy(alone, NOW)).toBe(
    "host003 → identity: no such service on this host\nAtlas was last heard 5 min ago\nrevision 48213 · Atlas not connected · no reload yet",
  );
});
