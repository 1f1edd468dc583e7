// What Atlas measures of itself.
import { Counter, createMetrics, Gauge, Histogram, LATENCY_BUCKETS, type Registry } from "../core/lib/metrics.ts";
import type { Certificate } from "./certificate.ts";
import type { Parts } from "./parts.ts";
import type { StreamEnd } from "./watcher.ts";

export type AtlasMetrics = {
  readonly registry: Registry;
  readonly answered: (method: string, path: string | undefined, status: number, seconds: number) => void;
  readonly streamEnded: (end: StreamEnd) => void;
  /** Adds the gauges that are read from the parts when somebody asks. */
  readonly observe: (parts: Parts, certificate: () => Certificate | undefined) => void;
};

export function createAtlasMetrics(): AtlasMetrics {
  const registry = createMetrics();
  const registers = [registry];
  const seconds = new Histogram({
    name: "smartstack_atlas_request_seconds",
    help: "Time to answer; of a stream, to its first byte; of a waiting write, waiting included",
    labelNames: ["method", "path", "status"],
    buckets: LATENCY_BUCKETS,
    registers,
  });
  const ended = new Counter({
    name: "smartstack_atlas_streams_ended_total",
    help: "Watch streams that ended: by their reader, by atlas in order, or cut off as too slow",
    labelNames: ["by"],
    registers,
  });
  return {
    registry,
    answered: (method, path, status, time) =>
      seconds.observe({ method, path: path ?? "none", status: String(status) }, time),
    streamEnded: ({ by }) => ended.inc({ by }),
    observe: ({ registry: state, meta, hub, agents, degraded, replicas }, certificate) => {
      const gauge = (name: string, help: string, read: () => number): void => {
        const one: Gauge = new Gauge({
          name: `smartstack_atlas_${name}`,
          help,
          registers,
          collect: () => one.set(read()),
        });
      };
      gauge("generation", "Generation of the registry", () => state.state().generation);
      gauge("revision", "Revision of the registry", () => state.state().revision);
      gauge("services", "Defined services", () => state.state().services.size);
      gauge("instances", "Registered instances", () => state.state().instances.size);
      gauge("replicas", "Replicas of Atlas that live, this one included", replicas);
      gauge("streams", "Open watch streams", () => hub.size);
      gauge("agents", "Agents whose lease lives, grace included", () => agents.size);
      gauge(
        "agents_connected",
        "Agents that are connected",
        () => agents.statuses().filter(({ connected }) => connected).length,
      );
      gauge(
        "audit_waiting",
        "Audit entries on this machine's disk that DynamoDB does not have yet",
        () => meta.auditBacklog?.().waiting ?? 0,
      );
      gauge(
        "audit_dropped",
        "Audit entries since the start that found no room, and are in the log alone",
        () => meta.auditBacklog?.().dropped ?? 0,
      );
      const expires = (): number => Math.round((certificate()?.validTo.getTime() ?? 0) / 1_000);
      if (expires() > 0)
        gauge("certificate_expires_seconds", "Until when Atlas's certificate is good, Unix time", expires);
      gauge("degraded", "How many things do not work; /v1/info names them", () => degraded().length);
    },
  };
}
