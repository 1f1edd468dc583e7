import { expect, test } from "bun:test";
import { canonicalAddress, parseAcl, parseBackends, parseServersState, parseStatus } from "./read-back.ts";

test("servers are read from what HAProxy 2.6 prints", () => {
  const text = `1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port
3 identity-backend 1 host001:5000 127.0.0.1 2 0 50 1 4 8 2 0 6 0 0 0 - 5991 - 0 0 - - 0
3 identity-backend 2 _::1_:5000 ::1 0 8 100 1 11 8 2 0 2 0 0 0 - 5992 - 0 0 - - 0
4 billing-backend 1 gone 10.0.0.1 0 1 1 1 11 8 2 0 14 0 0 0 - 80 - 0 0 - - 0`;
  const servers = parseServersState(text, new Set(["identity-backend/_::1_:5000"]));
  expect([...servers.keys()]).toEqual(["identity-backend", "billing-backend"]);
  expect(servers.get("identity-backend")?.get("host001:5000")).toEqual({
    name: "host001:5000",
    id: 1,
    address: "127.0.0.1",
    port: 5_991,
    weight: 50,
    drain: false,
    maintenance: false,
    checked: true,
    up: true,
    pinnable: true,
  });
  expect(servers.get("identity-backend")?.get("_::1_:5000")).toMatchObject({
    drain: true,
    checked: false,
    up: false,
    pinnable: false,
  });
  expect(servers.get("billing-backend")?.get("gone")).toMatchObject({ maintenance: true, checked: true });
});

test("lists of HAProxy are read: acl entries, backends", () => {
  expect(parseAcl("0x55d identity-backend/a\n0x55e identity-backend/b\n")).toEqual(
    new Set(["identity-backend/a", "identity-backend/b"]),
  );
  expect(parseAcl("")).toEqual(new Set());
  expect(parseBackends("# name\nunknown-service\nidentity-backend\n")).toEqual(["identity-backend"]);
});

test("the status of servers is told in words", () => {
  const head = "# pxname,svname,status,weight,check_status,check_code,check_duration,type,addr,last_chk,";
  const row = (name: string, status: string, check: string): string =>
    `identity-backend,${name},${status},100,${check},2,10.0.0.1:5000,,`;
  const text = [
    head,
    row("a", "UP", "L7OK,200,3"),
    row("_::1_:80", "DOWN", "* L4CON,,0").replace("10.0.0.1:5000", "[::1]:80"),
    row("c", "DRAIN 1/3", "INI,,"),
    row("d", "no check", ",,"),
    row("e", "DOWN", "L7STS,500,12"),
    "http-in,FRONTEND,OPEN,,,,,0,,,",
    "unknown-service,x,UP,1,,,,2,10.0.0.1:1,,",
  ].join("\n");
  expect(
    parseStatus(text).map(({ instance, address, port, status, check }) => [instance, address, port, status, check]),
  ).toEqual([
    ["a", "10.0.0.1", 5_000, "UP", "check 200, 3 ms"],
    ["[::1]:80", "::1", 80, "DOWN", "check: connection refused, 0 ms"],
    ["c", "10.0.0.1", 5_000, "DRAIN 1/3", "check: not checked yet"],
    ["d", "10.0.0.1", 5_000, "no check", ""],
    ["e", "10.0.0.1", 5_000, "DOWN", "check 500, 12 ms"],
  ]);
});

test("two spellings of an address are one", () => {
  expect(canonicalAddress("2001:DB8:0:0::7")).toBe(canonicalAddress("2001:db8::7"));
  expect(canonicalAddress("::ffff:1.2.3.4")).toBe(canonicalAddress("::ffff:102:304"));
  expect(canonicalAddress("10.0.0.1")).toBe("10.0.0.1");
});
