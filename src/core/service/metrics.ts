// What every service measures about itself. Labels are route patterns, never paths: a path per user would fill Prometheus.
import { monitorEventLoopDelay } from "node:perf_hooks";
import { Counter, createMetrics, Gauge, Histogram, LATENCY_BUCKETS, type Registry } from "../lib/metrics.ts";
import { VERSION } from "../lib/version.ts";
import type { Gate } from "./gate.ts";

export type ServiceMetrics = {
  readonly registry: Registry;
  /** One request is over. `seconds` counts from its arrival to the answer's headers. */
  observe(method: string, route: string, status: number, seconds: number): void;
  /** One request was refused at the door. */
  refused(reason: "overloaded" | "timed_out"): void;
  stop(): void;
};

export function serviceMetrics(service: string, version: string, gate: Gate): ServiceMetrics {
  const registry = createMetrics();
  const registers = [registry];
  const requests = new Counter({
    name: "http_requests_total",
    help: "Requests answered.",
    labelNames: ["method", "route", "status"],
    registers,
  });
  const durations = new Histogram({
    name: "http_request_duration_seconds",
    help: "From a request's arrival to the headers of its answer.",
    labelNames: ["method", "route"],
    buckets: LATENCY_BUCKETS,
    registers,
  });
  const refusals = new Counter({
    name: "http_requests_refused_total",
    help: "Requests answered 503 or 504 without being handled.",
    labelNames: ["reason"],
    registers,
  });
  gauge(registry, "http_requests_in_flight", "Requests being handled.", () => gate.inFlight);
  gauge(registry, "http_requests_queued", "Requests waiting for room.", () => gate.queued);
  const stop = runtimeMetrics(registry, service, version);

  // finding a labelled series is the expensive part of an observation, so each is kept
  type Series = { count: Counter.Internal; duration: Histogram.Internal<"method" | "route"> };
  const series = new Map<string, Series>();
  return {
    registry,
    observe(method, route, status, seconds) {
      const key = `${status} ${method} ${route}`;
      let known = series.get(key);
      if (known === undefined) {
        known = {
          count: requests.labels({ method, route, status: String(status) }),
          duration: durations.labels({ method, route }),
        };
        series.set(key, known);
      }
      known.count.inc();
      known.duration.observe(seconds);
    },
    refused: (reason) => refusals.inc({ reason }),
    stop,
  };
}

function gauge(registry: Registry, name: string, help: string, read: () => number): void {
  const made: Gauge = new Gauge({ name, help, registers: [registry], collect: () => made.set(read()) });
}

function runtimeMetrics(registry: Registry, service: string, version: string): () => void {
  new Gauge({
    name: "smartstack_build_info",
    help: "Always 1; the labels say what runs.",
    labelNames: ["service", "version", "smartstack", "bun"],
    registers: [registry],
  }).set({ service, version, smartstack: VERSION, bun: Bun.version }, 1);
  const startedAt = Date.now() / 1_000 - process.uptime();
  gauge(registry, "process_start_time_seconds", "Unix time of the start.", () => startedAt);
  gauge(registry, "process_resident_memory_bytes", "Resident memory.", () => process.memoryUsage.rss());
  gauge(registry, "process_cpu_seconds_total", "User and system time.", () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
  const delay = monitorEventLoopDelay({ resolution: 20 });
  delay.enable();
  gauge(registry, "event_loop_lag_seconds", "99th percentile since the last time this was read.", () => {
    const lag = delay.percentile(99) / 1e9;
    delay.reset();
    return Number.isFinite(lag) ? lag : 0;
  });
  return () => delay.disable();
}
