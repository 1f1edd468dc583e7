import { expect, test } from "bun:test";
import { type AtlasClient, AtlasProblem } from "../core/api/atlas-client.ts";
import { fakeClock } from "../core/lib/clock.ts";
import { errorCode, Fault } from "../core/lib/errors.ts";
import { silentLogger } from "../core/lib/logger.ts";
import { putLocalSchema } from "../core/model/local.ts";
import { emptySnapshot, type Snapshot } from "../core/model/snapshot.ts";
import { acceptStep, type LocalInstance, nextStep, putLocal } from "./local-instance.ts";
import { createRegistrar } from "./registrar.ts";

const ID = "identity/here:5000";
type Answer = (method: string, path: string) => object;

/** A registrar with one local instance, on an Atlas that answers as the test says. */
function setup(put: object = {}) {
  const clock = fakeClock();
  const sent: string[] = [];
  let revision = 0;
  let answer: Answer = () => ({});
  let snapshot: Snapshot = emptySnapshot("local");
  let local: LocalInstance = putLocal(
    undefined,
    "identity",
    "here:5000",
    putLocalSchema.parse({ port: 5000, ...put }),
    { host: "here", address: "10.0.0.1", zone: "" },
    clock.now(),
  );
  const client: AtlasClient = {
    async request(path, request) {
      const method = request.method ?? "GET";
      sent.push(`${method} ${path.replace("/v1/services/identity", "S")}`);
      const more = answer(method, path);
      revision += 1;
      return request.schema.parse({ generation: 1, revision, ...more });
    },
    fetch: () => Promise.reject(new Error("the registrar uses requests")),
  };
  const registrar = createRegistrar({
    host: "here",
    client,
    clock,
    logger: silentLogger,
    random: () => 0.5,
    task: () => {
      const seen = snapshot.instances.find(({ id }) => id === ID);
      const step = nextStep(local, snapshot, seen, "here");
      return step === undefined ? undefined : { local, step };
    },
    accepted: (task, position) => {
      local = acceptStep(local, task.local, task.step, position);
    },
    refused: () => {
      local = { ...local, definition: undefined };
    },
  });
  return {
    clock,
    sent,
    registrar,
    answer: (next: Answer) => {
      answer = next;
    },
    change: (change: Partial<LocalInstance>) => {
      local = { ...local, ...change };
    },
    see: (next: Snapshot) => {
      snapshot = next;
    },
  };
}

const down: Answer = () => {
  throw new Fault({ code: "unreachable", message: "could not reach Atlas" });
};
const refuse = (status: number, code: string, more: object = {}) => {
  throw new AtlasProblem(status, { code, detail: "no", ...more }, "that");
};

test("definition and instance go out in order, once", async () => {
  const { clock, sent, registrar } = setup({ definition: {} });
  registrar.look(ID);
  registrar.look(ID);
  await clock.advance(0);
  expect(sent).toEqual(["PUT S?publish=true", "PUT S/instances/here%3A5000"]);
  expect(await registrar.settled(ID, 100)).toBe(true);
});

test("Atlas is told again and again until it is there, at most five seconds apart", async () => {
  const { clock, sent, registrar, answer } = setup();
  answer(down);
  registrar.look(ID);
  await clock.advance(30_000);
  expect(sent.length).toBeGreaterThan(12);
  expect(registrar.problem(ID)).toBe("could not reach Atlas");
  answer(() => ({}));
  await clock.advance(5_000);
  const count = sent.length;
  await clock.advance(60_000);
  expect(sent.length).toBe(count);
  expect(registrar.problem(ID)).toBeUndefined();
});

test("when Atlas is back nobody waits for his turn", async () => {
  const { clock, sent, registrar, answer } = setup();
  answer(down);
  registrar.look(ID);
  await clock.advance(30_000);
  answer(() => ({}));
  const count = sent.length;
  registrar.retry();
  await clock.advance(0);
  expect(sent.length).toBe(count + 1);
});

test("a refused definition is reported and does not keep the instance out", async () => {
  const { clock, sent, registrar, answer } = setup({ definition: {} });
  answer((_, path) => (path.endsWith("publish=true") ? refuse(409, "conflict") : {}));
  registrar.look(ID);
  await clock.advance(0);
  expect(sent).toEqual(["PUT S?publish=true", "PUT S/instances/here%3A5000"]);
  expect(registrar.problem(ID)).toBe("Atlas refused that: no");
});

test("settled says false when Atlas did not take it", async () => {
  const { registrar, answer, clock } = setup();
  answer(down);
  const settled = registrar.settled(ID, 2_000);
  await clock.advance(0);
  expect(await settled).toBe(false);
});

test("one that left is deleted with this host as its agent", async () => {
  const { clock, sent, registrar, change } = setup();
  registrar.look(ID);
  await clock.advance(0);
  change({ left: "deregistered" });
  registrar.look(ID);
  await clock.advance(0);
  expect(sent.at(-1)).toBe("DELETE S/instances/here%3A5000?agent=here");
});

test("one that fell silent is deleted as expired: other hosts may look for themselves", async () => {
  const { clock, sent, registrar, change } = setup();
  registrar.look(ID);
  await clock.advance(0);
  change({ left: "expired" });
  registrar.look(ID);
  await clock.advance(0);
  expect(sent.at(-1)).toBe("DELETE S/instances/here%3A5000?agent=here&expired=true");
});

test("a drain that waits is one PATCH that Atlas answers when everybody applied it", async () => {
  const { clock, sent, registrar, answer, change } = setup();
  registrar.look(ID);
  await clock.advance(0);
  change({ draining: true });
  answer(() => ({ applied: 3, total: 3 }));
  expect(await registrar.settleApplied(ID, 10_000)).toEqual({ generation: 1, revision: 2, applied: 3, total: 3 });
  expect(sent.at(-1)).toBe("PATCH S/instances/here%3A5000?agent=here&wait=applied&timeout=10000ms");
});

test("a drain that Atlas already has is followed until everybody applied it", async () => {
  const { clock, sent, registrar, answer, change } = setup();
  change({ draining: true });
  registrar.look(ID);
  await clock.advance(0);
  let looks = 0;
  answer(() => {
    looks += 1;
    return { applied: looks, total: 3, pending: looks < 3 ? ["host9"] : [] };
  });
  const settled = registrar.settleApplied(ID, 10_000);
  await clock.advance(200);
  expect(await settled).toMatchObject({ revision: 1, applied: 3, total: 3 });
  expect(sent.slice(-3)).toEqual(["GET /v1/changes/1", "GET /v1/changes/1", "GET /v1/changes/1"]);
});

test("what a host refuses of others does not fail a drain that is followed", async () => {
  const { clock, registrar, answer, change } = setup();
  change({ draining: true });
  registrar.look(ID);
  await clock.advance(0);
  const refusals = [
    { host: "host9", service: "billing", error: "line 9" },
    { host: "host9", service: "identity", instance: "lost:5000", error: "does not resolve" },
  ];
  answer(() => ({ applied: 1, total: 1, pending: [], rejected: refusals }));
  expect(await registrar.settleApplied(ID, 10_000)).toMatchObject({ applied: 1, total: 1 });
  answer(() => ({ applied: 0, total: 1, pending: [], rejected: [{ host: "host9", service: "identity", error: "x" }] }));
  expect(errorCode(await registrar.settleApplied(ID, 10_000).catch((error: unknown) => error))).toBe("rejected");
});

test("a drain while Atlas is away ends with not_applied when the time is up", async () => {
  const { clock, registrar, answer, change } = setup();
  change({ draining: true });
  answer(down);
  const outcome = registrar.settleApplied(ID, 3_000).catch((error: unknown) => error);
  await clock.advance(2_999);
  let over = false;
  void outcome.then(() => (over = true));
  await clock.advance(0);
  expect(over).toBe(false);
  await clock.advance(1);
  expect(errorCode(await outcome)).toBe("not_applied");
});

test("what Atlas says of a drain that others refuse or do not apply is handed on", async () => {
  const { registrar, answer, change } = setup();
  change({ draining: true });
  answer(() => refuse(504, "not_applied", { pending: ["host9"], unreachable: [] }));
  expect(await registrar.settleApplied(ID, 3_000).catch((error: unknown) => error)).toMatchObject({
    code: "not_applied",
    extra: { pending: ["host9"], unreachable: [] },
  });
  answer(() => refuse(409, "rejected", { rejected: [{ host: "host9", service: "identity", error: "x" }] }));
  expect(await registrar.settleApplied(ID, 3_000).catch((error: unknown) => error)).toMatchObject({
    code: "rejected",
    extra: { rejected: [{ host: "host9", service: "identity", error: "x" }] },
  });
});

test("stop ends every wait", async () => {
  const { clock, registrar, answer } = setup();
  answer(down);
  registrar.look(ID);
  await clock.advance(1_000);
  await registrar.stop();
  await clock.advance(0);
  expect(clock.pending).toBe(0);
});
