// How much each instance of a service gets, as HAProxy's weights. Weights in the registry only mean something beside each
// other, and HAProxy's `random` keeps 16 points of 48 bytes for every unit: the registry's default of 100 would cost 77 KB a
// server and two seconds at start with 10,000 of them (measured). So they are reduced to small numbers of the same ratio.
import { type Instance, isUsable } from "../model/instance.ts";

/** HAProxy's own limit. */
const MOST = 256;
/** Enough points to share evenly, where the ratio asks for no more. */
const ENOUGH = 16;

/** The weight of each instance in HAProxy, in the order given. @param split percentages by version, see the definition */
export function sharesOf(
  instances: readonly Instance[],
  split: Readonly<Record<string, number>> | undefined,
): readonly number[] {
  const weights = instances.map(({ weight }) => weight);
  const parts = split === undefined ? undefined : splitByVersion(instances, split);
  return parts === undefined ? reduce(weights) : scale(parts);
}

/** The smallest whole numbers with the same ratio, multiplied up to about `ENOUGH`. */
function reduce(weights: readonly number[]): readonly number[] {
  const divisor = weights.reduce(greatestCommonDivisor, 0);
  if (divisor === 0) return weights;
  const largest = Math.max(...weights) / divisor;
  const factor = Math.max(1, Math.floor(ENOUGH / largest));
  return weights.map((weight) => (weight / divisor) * factor);
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

/**
 * Every version's percentage, divided among its usable instances by their weights. Undefined when no version of the split
 * has a usable instance: better the wrong version than none.
 */
function splitByVersion(
  instances: readonly Instance[],
  split: Readonly<Record<string, number>>,
): readonly number[] | undefined {
  const totals = new Map<string, number>();
  for (const instance of instances) {
    if (isUsable(instance)) totals.set(instance.version, (totals.get(instance.version) ?? 0) + instance.weight);
  }
  const parts = instances.map(({ version, weight }) => {
    const total = totals.get(version) ?? 0;
    return total === 0 ? 0 : ((split[version] ?? 0) * weight) / total;
  });
  return parts.some((part) => part > 0) ? parts : undefined;
}

/** Whole numbers, the largest `MOST`; what is more than nothing stays more than nothing. */
function scale(parts: readonly number[]): readonly number[] {
  const largest = Math.max(...parts);
  return parts.map((part) => (part === 0 ? 0 : Math.min(MOST, Math.max(1, Math.round((part * MOST) / largest)))));
}
