import { expect, test } from "bun:test";
import { fakeClock } from "../core/lib/clock.ts";
import { Fault } from "../core/lib/errors.ts";
import { silentLogger } from "../core/lib/logger.ts";
import type { Applied, Desired } from "../core/haproxy/proxy.ts";
import { type Application, createApplier } from "./applier.ts";

const nothing: Applied = { rejected: [], reloaded: false, reasons: [] };

function setup() {
  const clock = fakeClock();
  const calls: { kind: "start" | "apply"; agents: number; finish: (answer?: Fault | Applied) => void }[] = [];
  const applications: Application[] = [];
  const failures: Fault[] = [];
  let wanted = 0;
  const call = (kind: "start" | "apply", desired: Desired): Promise<Applied> =>
    new Promise((resolve, reject) => {
      calls.push({
        kind,
        agents: desired.agents,
        finish: (answer = nothing) => (answer instanceof Fault ? reject(answer) : resolve(answer)),
      });
    });
  const applier = createApplier({
    proxy: { start: (desired) => call("start", desired), apply: (desired) => call("apply", desired) },
    clock,
    logger: silentLogger,
    random: () => 0.5,
    target: () => ({
      desired: { services: {}, instances: [], agents: wanted },
      position: { generation: 1, revision: wanted },
    }),
    onApplied: (application) => applications.push(application),
    onFailure: (failure) => failures.push(failure),
  });
  return {
    clock,
    calls,
    applications,
    failures,
    applier,
    want: (revision: number, urgent = false) => {
      wanted = revision;
      applier.request(urgent);
    },
    finish: async (answer?: Fault | Applied) => {
      calls.at(-1)?.finish(answer);
      await clock.advance(0);
    },
  };
}

test("what came before the start is in the start", async () => {
  const { calls, applications, applier, want, finish, clock } = setup();
  want(3);
  await clock.advance(40);
  const starting = applier.start();
  expect(calls.map(({ kind, agents }) => [kind, agents])).toEqual([["start", 3]]);
  await finish();
  await starting;
  expect(applications).toEqual([
    { applied: nothing, position: { generation: 1, revision: 3 }, urgent: false, tookMs: 40 },
  ]);
  expect(calls.length).toBe(1);
});

test("changes of one moment are one, later ones do not wait for those under way", async () => {
  const { calls, applier, want, finish, clock } = setup();
  const starting = applier.start();
  await finish();
  await starting;
  want(1);
  want(2);
  await clock.advance(0);
  expect(calls.map(({ agents }) => agents)).toEqual([0, 2]);
  want(3);
  await clock.advance(0);
  expect(calls.map(({ agents }) => agents)).toEqual([0, 2, 3]);
});

test("what one read-back covers is told of as one, with its newest state and its oldest change", async () => {
  const { calls, applications, applier, want, finish, clock } = setup();
  const starting = applier.start();
  await finish();
  await starting;
  want(1);
  await clock.advance(10);
  want(2, true);
  await clock.advance(10);
  want(3);
  await clock.advance(5);
  for (const call of calls.slice(1)) call.finish();
  await clock.advance(0);
  expect(applications.slice(1)).toEqual([
    { applied: nothing, position: { generation: 1, revision: 3 }, urgent: true, tookMs: 25 },
  ]);
});

test("a start that fails is the caller's", async () => {
  const { applier, finish } = setup();
  const starting = applier.start().catch((error: unknown) => error);
  await finish(new Fault({ code: "haproxy_missing", message: "no" }));
  expect(await starting).toMatchObject({ code: "haproxy_missing" });
});

test("an apply that fails is tried again, and those who wait are not forgotten", async () => {
  const { calls, applications, failures, applier, want, finish, clock } = setup();
  const starting = applier.start();
  await finish();
  await starting;
  want(1, true);
  await clock.advance(0);
  await finish(new Fault({ code: "haproxy_failed", message: "disk full" }));
  expect(failures.map(({ code }) => code)).toEqual(["haproxy_failed"]);
  expect(applier.failure?.code).toBe("haproxy_failed");
  await clock.advance(249);
  expect(calls.length).toBe(2);
  await clock.advance(1);
  expect(calls.length).toBe(3);
  await finish();
  expect(applications.at(-1)).toMatchObject({ position: { revision: 1 }, urgent: true, tookMs: 250 });
  expect(applier.failure).toBeUndefined();
});

test("one failure of several that were under way is one failure, and one more attempt", async () => {
  const { calls, failures, applier, want, finish, clock } = setup();
  const starting = applier.start();
  await finish();
  await starting;
  want(1);
  await clock.advance(0);
  want(2);
  await clock.advance(0);
  for (const call of calls.slice(1)) call.finish(new Fault({ code: "haproxy_failed", message: "no" }));
  await clock.advance(0);
  expect(failures.length).toBe(1);
  await clock.advance(5_000);
  expect(calls.map(({ agents }) => agents)).toEqual([0, 1, 2, 2]);
});

test("after stop nothing begins, and nothing is heard", async () => {
  const { calls, applications, failures, applier, want, finish, clock } = setup();
  const starting = applier.start();
  await finish();
  await starting;
  want(1);
  await clock.advance(0);
  applier.stop();
  want(2);
  await finish(new Fault({ code: "stopped", message: "the proxy was stopped" }));
  await clock.advance(10_000);
  expect([calls.length, applications.length, failures.length, clock.pending]).toEqual([2, 1, 0, 0]);
});

test("what was refused is tried again, since its reason may be gone, until it is not refused", async () => {
  const { calls, applier, want, finish, clock } = setup();
  const starting = applier.start();
  await finish();
  await starting;
  want(1);
  await clock.advance(0);
  await finish({ ...nothing, rejected: [{ service: "identity", error: "no space left on device" }] });
  await clock.advance(29_000);
  expect(calls).toHaveLength(2);
  await clock.advance(1_000);
  expect(calls).toHaveLength(3);
  await finish();
  await clock.advance(60_000);
  expect(calls).toHaveLength(3);
  expect(clock.pending).toBe(0);
});
