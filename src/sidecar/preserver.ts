// Self-preservation at work: takes the registry's word, holds what is doubtful, and asks the held instances themselves.
import type { Clock } from "../core/lib/clock.ts";
import type { Logger } from "../core/lib/logger.ts";
import type { Delta, Snapshot } from "../core/model/snapshot.ts";
import { endHolds, probed, type Verdict } from "./hold.ts";
import type { HostState } from "./host-state.ts";
import type { Probe } from "./probe.ts";
import { rounds } from "./rounds.ts";
import type { SidecarMetrics } from "./metrics.ts";

/** The first probe comes within this time, in ms: thousands of hosts doubt the same removal at the same moment. */
const SPREAD_MS = 3_000;
/** After a failed probe the second, deciding one, in ms. */
const SECOND_LOOK_MS = 1_000;
/** A held instance is probed so often, in ms … */
const REPROBE_MS = 10_000;
/** … but no more than ten times a second by all agents together, so each waits this long per agent, in ms. */
const REPROBE_PER_AGENT_MS = 100;

export type PreserverOptions = {
  readonly state: HostState;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: SidecarMetrics;
  readonly probe: Probe;
  readonly random: () => number;
  /** A probe changed what is routed. */
  readonly changed: () => void;
};

export interface Preserver {
  /** The registry said something new. */
  take(snapshot: Snapshot, delta: Delta | undefined): void;
  /** Begins to probe what is held already, after a start from disk. */
  start(): void;
  stop(): void;
}

export function createPreserver(options: PreserverOptions): Preserver {
  const { state, clock, logger, metrics, probe, random, changed } = options;

  const tell = (verdicts: readonly Verdict[]): void => {
    for (const { id, outcome, because } of verdicts) {
      if (outcome === "held") logger.warn({ id }, `held: the registry dropped it (${because}); probing`);
      else logger.info({ id }, outcome === "obeyed" ? `removed: ${because}` : `no longer held: ${because}`);
      metrics.removals.inc({ outcome });
    }
    metrics.holds.set(state.view.holds.size);
    probes.keep(state.view.holds.keys());
  };

  const probes = rounds({
    clock,
    logger,
    firstMs: () => random() * SPREAD_MS,
    visit: async (id) => {
      const hold = state.view.holds.get(id);
      if (hold === undefined) return undefined;
      const { address, port, service } = hold.instance;
      const { passed, detail } = await probe({ address, port, definition: state.definition(service) });
      const after = probed(state.view, id, passed, clock.now());
      const ended = endHolds(after.view, clock.now());
      const verdicts = [...after.verdicts, ...ended.verdicts];
      state.view = ended.view;
      tell(verdicts);
      if (verdicts.length > 0) changed();
      if (!passed) logger.info({ id }, `held instance: ${detail}`);
      return passed ? Math.max(REPROBE_MS, REPROBE_PER_AGENT_MS * state.agents) : SECOND_LOOK_MS;
    },
  });

  return {
    take(snapshot, delta) {
      tell(state.take(snapshot, delta, clock.now()));
    },
    start: () => probes.keep(state.view.holds.keys()),
    stop: () => probes.stop(),
  };
}
