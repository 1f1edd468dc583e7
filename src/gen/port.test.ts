import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../e2e/process.ts";
import {
  FIRST_PORT,
  type HeldPort,
  holdFreePort,
  holdPort,
  holdTrialPort,
  neighbourPorts,
  readProject,
} from "./port.ts";

let directory = "";
let held: HeldPort[] = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "smartstack-port-"));
});
afterEach(async () => {
  for (const port of held) await port.release();
  held = [];
  await rm(directory, { recursive: true });
});

const hold = async (neighbours: () => Promise<ReadonlySet<number>>): Promise<number> => {
  const port = await holdFreePort(neighbours);
  held.push(port);
  return port.port;
};

test("runs at the same time get different ports", async () => {
  const ports = await Promise.all(Array.from({ length: 50 }, () => hold(async () => new Set())));
  expect(new Set(ports).size).toBe(50);
  expect(Math.min(...ports)).toBeGreaterThanOrEqual(FIRST_PORT);
});

test("a held port, or trial, is nobody else's until it is released", async () => {
  const first = await hold(async () => new Set());
  expect(await hold(async () => new Set())).not.toBe(first);
  const trials = new Set<number>();
  // more than half of all there are: by chance alone they would not differ
  for (let count = 0; count < 700; count += 1) {
    const trial = await holdTrialPort();
    held.push(trial);
    trials.add(trial.port);
  }
  expect(trials.size).toBe(700);
});

test("a port that a neighbour names is left alone, also when the neighbour appears late", async () => {
  const first = await hold(async () => new Set());
  await held.pop()?.release();
  expect(await hold(async () => new Set([first]))).not.toBe(first);
  let asked = 0;
  const late = async (): Promise<ReadonlySet<number>> => new Set((asked += 1) > 1 ? [first] : []);
  expect(await hold(late)).not.toBe(first);
  expect(asked).toBeGreaterThan(1);
});

test("a port that somebody listens on, on any address, cannot be held", async () => {
  for (const host of ["127.0.0.1", "127.0.0.2", "0.0.0.0"]) {
    const port = await freePort();
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(port, host, resolve));
    expect(await holdPort(port)).toBeUndefined();
    await new Promise((resolve) => server.close(resolve));
    const now = await holdPort(port);
    expect(now?.port).toBe(port);
    await now?.release();
  }
});

test("trials at the same time get different ports, which the services can listen on", async () => {
  const trials = await Promise.all(Array.from({ length: 50 }, () => holdTrialPort()));
  held.push(...trials);
  expect(new Set(trials.map(({ port }) => port)).size).toBe(50);
  for (const { port } of trials) {
    const service = await holdPort(port);
    expect(service?.port).toBe(port);
    await service?.release();
  }
});

test("neighbours are the projects beside, whatever else lies there", async () => {
  const project = async (name: string, text: string): Promise<void> => {
    await mkdir(join(directory, name));
    await writeFile(join(directory, name, "smartstack.yaml"), text);
  };
  await project("identity", "name: identity\nport: 5000\n");
  await project("billing", "{ name: billing, port: 5007 }");
  await project("self", "name: self\nport: 5001\n");
  await project("portless", "name: portless\n");
  await project("broken", "port: [5002\n: :");
  await project("words", "just words");
  await mkdir(join(directory, "empty"));
  await writeFile(join(directory, "smartstack.yaml"), "name: outer\nport: 5003\n");
  expect(await neighbourPorts(join(directory, "self"))).toEqual(new Set([5000, 5007]));
  expect(await readProject(join(directory, "self"))).toEqual({ name: "self", port: 5001 });
  expect(await neighbourPorts(join(directory, "no/parent"))).toEqual(new Set());
  expect(await readProject(join(directory, "nowhere"))).toEqual({ name: undefined, port: undefined });
});
