import { expect, test } from "bun:test";
import type { SidecarClient } from "../core/api/sidecar-client.ts";
import { type FakeClock, fakeClock } from "../core/lib/clock.ts";
import { Fault } from "../core/lib/errors.ts";
import { createLogger } from "../core/lib/logger.ts";
import { defaultDefinition } from "../core/model/service.ts";
import { Registration, type RegistrationOptions } from "./registration.ts";

type Sidecar = {
  readonly client: SidecarClient;
  readonly calls: string[];
  away: boolean;
  drains: "applied" | "never";
  atlas: boolean;
};

function sidecar(): Sidecar {
  const answer = async <T>(call: string, value: T): Promise<T> => {
    if (state.away) throw new Fault({ code: "unreachable", message: "could not reach the sidecar" });
    state.calls.push(call);
    return value;
  };
  const written = { generation: 1, revision: 7, registered: true };
  const state: Sidecar = {
    calls: [],
    away: false,
    drains: "applied",
    atlas: true,
    client: {
      info: () =>
        answer("info", {
          realm: "test",
          host: "host001",
          address: "10.0.0.1",
          zone: "",
          version: "",
          router: "http://127.0.0.1:4000",
          atlas: { connected: true },
          generation: 1,
          revision: 7,
        }),
      put: (service, instance, put) =>
        answer(
          `put ${service}/${instance}${put.definition === undefined ? "" : " with definition"}`,
          state.atlas ? written : { ...written, registered: false, problem: "Atlas is away" },
        ),
      async drain(service, instance) {
        const result = await answer(`drain ${service}/${instance}`, { ...written, applied: 2, total: 2 });
        if (state.drains === "never") throw new Fault({ code: "not_applied", message: "host002 has not applied it" });
        return result;
      },
      deregister: (service, instance) => answer(`deregister ${service}/${instance}`, written),
      why: () => Promise.reject(new Error("not asked here")),
      snapshot: () => Promise.reject(new Error("not asked here")),
    },
  };
  return state;
}

function register(
  to: Sidecar,
  more: Partial<RegistrationOptions> = {},
): { registration: Registration; clock: FakeClock; log: string[] } {
  const clock = fakeClock();
  const log: string[] = [];
  const registration = new Registration({
    service: "identity",
    port: 5_000,
    host: undefined,
    address: undefined,
    version: "",
    definition: defaultDefinition,
    realm: "test",
    sidecar: to.client,
    clock,
    logger: createLogger({
      name: "identity",
      destination: { write: (line) => void log.push((JSON.parse(line) as { msg: string }).msg) },
    }),
    ...more,
  });
  return { registration, clock, log };
}

test("an instance is named after the sidecar's host, published once, and repeated before its time is over", async () => {
  const host = sidecar();
  const { registration, clock } = register(host);
  await registration.start();
  expect(registration.instance).toBe("host001:5000");
  await clock.advance(20_000);
  expect(host.calls).toEqual([
    "info",
    "put identity/host001:5000 with definition",
    "put identity/host001:5000",
    "put identity/host001:5000",
  ]);
  await registration.leave();
  expect(clock.pending).toBe(0);
});

test("a sidecar that is away is told about once, and asked again until it is there; then it gets everything", async () => {
  const host = sidecar();
  host.away = true;
  const { registration, clock, log } = register(host);
  await registration.start();
  await clock.advance(60_000);
  expect(log).toEqual(["could not reach the sidecar"]);
  host.away = false;
  await clock.advance(6_000);
  expect(log.at(-1)).toBe("registered as identity/host001:5000");
  host.away = true;
  await clock.advance(30_000);
  host.away = false;
  host.calls.length = 0;
  await clock.advance(6_000);
  expect(host.calls.slice(0, 2)).toEqual(["info", "put identity/host001:5000 with definition"]);
  await registration.leave();
});

test("a sidecar of another realm is refused", async () => {
  const host = sidecar();
  const { registration, log } = register(host, { realm: "prod" });
  await registration.start();
  expect(host.calls).toEqual(["info"]);
  expect(log[0]).toContain("belongs to the realm test, this service runs in prod");
  await registration.leave();
});

test("an Atlas that is away is told about, and that it came back", async () => {
  const host = sidecar();
  host.atlas = false;
  const { registration, clock, log } = register(host);
  await registration.start();
  host.atlas = true;
  await clock.advance(10_000);
  expect(log).toEqual([
    "host001:5000 is known to this host, but not yet to Atlas: Atlas is away",
    "registered as identity/host001:5000",
  ]);
  await registration.leave();
});

test("leaving drains first and ends at once when every host applied it", async () => {
  const host = sidecar();
  const { registration, clock, log } = register(host);
  await registration.start();
  await registration.drain();
  await registration.leave();
  await registration.leave();
  expect(host.calls.slice(2)).toEqual(["drain identity/host001:5000", "deregister identity/host001:5000"]);
  expect(log).toContain("draining, applied by 2 of 2 hosts after 0 ms");
  expect(clock.pending).toBe(0);
});

test("a drain that nobody confirms takes its ten seconds, so that checks see the instance go", async () => {
  for (const trouble of ["never", "away"] as const) {
    const host = sidecar();
    const { registration, clock } = register(host);
    await registration.start();
    host.drains = "never";
    host.away = trouble === "away";
    let drained = false;
    const draining = registration.drain().finally(() => {
      drained = true;
    });
    await clock.advance(9_999);
    expect(drained).toBe(false);
    await clock.advance(1);
    await draining;
    await registration.leave();
  }
});

test("a sidecar that is being restarted is told of the drain when it is there again", async () => {
  const host = sidecar();
  const { registration, clock } = register(host);
  await registration.start();
  host.away = true;
  const draining = registration.drain();
  await clock.advance(1_000);
  host.away = false;
  await clock.advance(250);
  await draining;
  await registration.leave();
  expect(host.calls.slice(2)).toEqual(["drain identity/host001:5000", "deregister identity/host001:5000"]);
});

test("an instance that was never registered has nothing to drain", async () => {
  const host = sidecar();
  host.away = true;
  const { registration, clock } = register(host);
  await registration.start();
  await registration.drain();
  await registration.leave();
  expect([host.calls, clock.pending]).toEqual([[], 0]);
});
