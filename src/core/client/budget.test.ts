import { expect, test } from "bun:test";
import { BUDGET_WINDOW_MS, retryBudget } from "./budget.ts";

const options = { ratio: 0.1, reserve: 10 };
const start = 1_700_000_000_000;

test("a service nobody called yet has the reserve", () => {
  const budget = retryBudget();
  const granted = Array.from({ length: 15 }, () => budget.withdraw(start, options)).filter(Boolean);
  expect(granted).toHaveLength(10);
});

test("1,000 requests allow 100 retries on top of the reserve, and not one more", () => {
  const budget = retryBudget();
  let granted = 0;
  for (let i = 0; i < 1_000; i += 1) {
    budget.request(start + i);
    if (budget.withdraw(start + i, options)) granted += 1;
    if (budget.withdraw(start + i, options)) granted += 1;
  }
  expect(granted).toBe(110);
});

test("what was spent comes back when it is ten seconds past, and so do the requests go", () => {
  const budget = retryBudget();
  for (let i = 0; i < 100; i += 1) budget.request(start);
  for (let i = 0; i < 20; i += 1) expect(budget.withdraw(start, options)).toBe(true);
  expect(budget.available(start + BUDGET_WINDOW_MS / 2, options)).toBe(0);
  expect(budget.available(start + BUDGET_WINDOW_MS * 1.2, options)).toBe(10);
});

test("a clock that goes back neither breaks it nor gives anything away", () => {
  const budget = retryBudget();
  for (let i = 0; i < 10; i += 1) budget.withdraw(start, options);
  expect(budget.withdraw(start - 60_000, options)).toBe(false);
  expect(budget.withdraw(start + 1_000, options)).toBe(false);
});
