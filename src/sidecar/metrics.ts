// The sidecar's own metrics, all in one place so that their names are. HAProxy's come from HAProxy.
import { Counter, createMetrics, Gauge, Histogram, LATENCY_BUCKETS, type Registry } from "../core/lib/metrics.ts";
import type { AccessRecord } from "../core/haproxy/access-log.ts";

export type SidecarMetrics = {
  readonly registry: Registry;
  readonly info: Gauge<"version" | "host" | "realm">;
  readonly connected: Gauge;
  readonly revision: Gauge;
  readonly appliedRevision: Gauge;
  readonly apply: Histogram;
  readonly applyFailures: Counter;
  readonly reloads: Counter;
  readonly rejected: Gauge;
  readonly holds: Gauge;
  readonly removals: Counter<"outcome">;
  readonly locals: Gauge;
  readonly checks: Counter<"result">;
  readonly requests: Counter<"service" | "instance" | "status">;
  readonly retries: Counter<"service">;
  readonly duration: Histogram<"service">;
};

export function createSidecarMetrics(): SidecarMetrics {
  const registry = createMetrics();
  const of = <T extends string>(name: string, help: string, labelNames: readonly T[] = []) => ({
    name: `smartstack_${name}`,
    help,
    labelNames,
    registers: [registry],
  });
  return {
    registry,
    info: new Gauge(of("sidecar_info", "Always 1; who this is", ["version", "host", "realm"])),
    connected: new Gauge(of("sidecar_atlas_connected", "1 while the sidecar follows Atlas")),
    revision: new Gauge(of("sidecar_revision", "The registry's revision as last heard from Atlas")),
    appliedRevision: new Gauge(of("sidecar_applied_revision", "The revision that HAProxy was read back to run")),
    apply: new Histogram({
      ...of("sidecar_apply_seconds", "From a change's arrival to HAProxy's read-back"),
      buckets: LATENCY_BUCKETS,
    }),
    applyFailures: new Counter(of("sidecar_apply_failures_total", "Attempts that left HAProxy at an older state")),
    reloads: new Counter(of("sidecar_haproxy_reloads_total", "Reloads of HAProxy")),
    rejected: new Gauge(
      of("sidecar_rejected_services", "Services that HAProxy refused; they stay in their last good form"),
    ),
    holds: new Gauge(of("sidecar_held_instances", "Instances that the registry dropped and this host still routes")),
    removals: new Counter(
      of("sidecar_removals_total", "Instances that the registry dropped: obeyed, held, and released from a hold", [
        "outcome",
      ]),
    ),
    locals: new Gauge(of("sidecar_local_instances", "Instances of this host")),
    checks: new Counter(of("sidecar_checks_total", "Checks of this host's instances", ["result"])),
    requests: new Counter(of("requests_total", "Requests that HAProxy finished", ["service", "instance", "status"])),
    retries: new Counter(of("request_retries_total", "Further attempts that HAProxy made", ["service"])),
    duration: new Histogram({
      ...of("request_duration_seconds", "From the request's first byte to the response's last", ["service"]),
      buckets: LATENCY_BUCKETS,
    }),
  };
}

/** @param knows whether the host routes a service; names that callers made up share one label */
export function countRequest(metrics: SidecarMetrics, record: AccessRecord, knows: (service: string) => boolean): void {
  const service = record.service !== undefined && knows(record.service) ? record.service : "unknown";
  const status = record.status < 0 ? "aborted" : `${Math.floor(record.status / 100)}xx`;
  metrics.requests.inc({ service, instance: record.instance ?? "", status });
  if (record.retries > 0) metrics.retries.inc({ service }, record.retries);
  if (record.timings.total >= 0) metrics.duration.observe({ service }, record.timings.total / 1_000);
}
