import { expect, test } from "bun:test";
import { HostState } from "./host-state.ts";

test("a realm grows at once and shrinks after ten minutes", () => {
  const state = new HostState("local", "here");
  expect(state.countAgents(20, 0)).toBe(true);
  expect(state.countAgents(21, 1)).toBe(true);
  expect(state.countAgents(20, 2)).toBe(false);
  expect(state.countAgents(20, 600_000)).toBe(false);
  expect(state.agents).toBe(21);
  expect(state.countAgents(21, 600_001)).toBe(false);
  expect(state.countAgents(20, 1_200_000)).toBe(false);
  expect(state.countAgents(20, 1_200_001)).toBe(true);
  expect(state.agents).toBe(20);
});

test("a number from disk counts as just seen", () => {
  const state = new HostState("local", "here", { view: undefined, locals: new Map(), agents: 9 });
  expect(state.countAgents(1, 5_000)).toBe(false);
  expect(state.countAgents(1, 605_000)).toBe(true);
});
