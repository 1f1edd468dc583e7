import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { ProblemFault } from "../core/lib/http.ts";
import type { Rejection } from "../core/model/agent.ts";
import { createWorld, settle, type World } from "./fixture.ts";

let world: World;
beforeEach(async () => {
  world = await createWorld();
});
afterEach(async () => {
  await world.dispose();
});

const connect = (host: string, boot = "1") =>
  world.leases.connect({ host, boot, zone: "", version: "" }, () => undefined);
const ack = (host: string, revision: number, rejected: Rejection[] = []) =>
  world.agents.acknowledge(host, {
    generation: world.registry.state().generation,
    revision,
    rejected,
    reloaded: false,
    tookMs: 1,
  });

/** Waits for the registry's newest revision, and tells what became of it. */
function waiting(service = "identity", timeoutMs = 10_000, signal = new AbortController().signal, about = {}) {
  const { generation, revision } = world.registry.state();
  const state: { result?: unknown } = {};
  const wait = world.waits.begin();
  const done = wait
    .applied({ position: { generation, revision }, subject: { service, ...about }, timeoutMs, signal })
    .then(
      (progress) => (state.result = progress),
      (error: unknown) => (state.result = error instanceof ProblemFault ? [error.code, error.extra] : error),
    )
    .finally(() => wait.end());
  return { revision, state, done };
}

describe("waiting until a change is applied", () => {
  test("is over at once when there are no agents", async () => {
    await world.put("identity", "x");
    const { state, done } = waiting();
    await done;
    expect(state.result).toMatchObject({ applied: 0, total: 0 });
  });

  test("ends when the last agent has acked that revision or a later one, and not before", async () => {
    for (const host of ["a", "b"]) await connect(host);
    await world.put("identity", "x");
    const { revision, state } = waiting();
    ack("a", revision - 1);
    ack("b", revision);
    await settle();
    expect(state.result).toBeUndefined();
    const { revision: later } = await world.put("identity", "y");
    ack("a", later);
    await settle();
    expect(state.result).toMatchObject({ applied: 2, total: 2, pending: [], unreachable: [] });
  });

  test("an ack of another generation does not count", async () => {
    await connect("a");
    await world.put("identity", "x");
    const { revision, state } = waiting();
    world.agents.acknowledge("a", { generation: 1, revision: revision + 9, rejected: [], reloaded: false, tookMs: 0 });
    await settle();
    expect(state.result).toBeUndefined();
  });

  test("counts agents in grace as unreachable, until they return or expire", async () => {
    const leave = await connect("a");
    await connect("b");
    await world.put("identity", "x");
    leave();
    const timedOut = waiting("identity", 1_000);
    ack("b", timedOut.revision);
    await world.pass(1_000);
    expect(timedOut.state.result).toMatchObject([
      "not_applied",
      { applied: 1, total: 2, pending: [], unreachable: ["a"], revision: timedOut.revision },
    ]);
    const patient = waiting("identity", 60_000);
    await world.pass(20_000);
    ack("b", patient.revision);
    expect(patient.state.result).toBeUndefined();
    await world.pass(10_000);
    expect(patient.state.result).toMatchObject({ applied: 1, total: 1 });
  });

  test("counts an agent that joins meanwhile, and one that restarts", async () => {
    await connect("a");
    await world.put("identity", "x");
    const { revision, state } = waiting();
    await connect("b");
    ack("a", revision);
    await settle();
    expect(state.result).toBeUndefined();
    ack("b", revision);
    await settle();
    expect(state.result).toMatchObject({ applied: 2, total: 2 });
  });

  test("is refused as soon as one agent refuses that service, whatever the others do", async () => {
    for (const host of ["a", "b"]) await connect(host);
    await world.put("identity", "x");
    const { revision, state } = waiting();
    ack("a", revision, [{ service: "identity", error: "line 9" }]);
    await settle();
    expect(state.result).toMatchObject([
      "rejected",
      { rejected: [{ host: "a", service: "identity", error: "line 9" }], pending: ["b"], revision },
    ]);
  });

  test("an instance that a host leaves out refuses what is written about it, and nothing else of its service", async () => {
    await connect("a");
    await world.put("identity", "x");
    const aboutIt = waiting("identity", 10_000, undefined, { instance: "x" });
    const aboutAnother = waiting("identity", 10_000, undefined, { instance: "y" });
    const aboutTheService = waiting();
    ack("a", aboutIt.revision, [{ service: "identity", instance: "x", error: "does not resolve" }]);
    await settle();
    expect(aboutIt.state.result).toMatchObject(["rejected", { rejected: [{ host: "a", instance: "x" }] }]);
    for (const { state } of [aboutAnother, aboutTheService]) {
      expect(state.result).toMatchObject({ applied: 1, total: 1, rejected: [] });
    }
  });

  test("another service's refusal is no reason", async () => {
    await connect("a");
    await world.put("identity", "x");
    const { revision, state } = waiting();
    ack("a", revision, [{ service: "billing", error: "line 9" }]);
    await settle();
    expect(state.result).toMatchObject({ applied: 1, total: 1 });
  });

  test("ends when Atlas stops, and when the caller goes away, leaving no timer behind", async () => {
    await connect("a");
    await world.put("identity", "x");
    const timers = world.clock.pending;
    const caller = new AbortController();
    const gone = waiting("identity", 10_000, caller.signal);
    const stopped = waiting();
    expect(world.clock.pending).toBe(timers + 2);
    caller.abort();
    await gone.done;
    expect(gone.state.result).toMatchObject(["unavailable", undefined]);
    world.waits.stop();
    await stopped.done;
    expect(stopped.state.result).toMatchObject(["unavailable", undefined]);
    expect(world.clock.pending).toBe(timers);
  });

  test("asks for acks from the moment it begins until its own change has left", async () => {
    expect(world.waits.wantsAck(1, 5)).toBe(false);
    const wait = world.waits.begin();
    expect(world.waits.wantsAck(1, 5)).toBe(true);
    void wait
      .applied({
        position: { generation: 1, revision: 4 },
        subject: { service: "identity" },
        timeoutMs: 1_000,
        signal: new AbortController().signal,
      })
      .catch(() => undefined);
    expect([world.waits.wantsAck(3, 4), world.waits.wantsAck(1, 9), world.waits.wantsAck(4, 9)]).toEqual([
      true,
      true,
      false,
    ]);
    wait.end();
    expect(world.waits.wantsAck(3, 4)).toBe(false);
  });
});
