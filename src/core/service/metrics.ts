// What every service measures about itself. Labels are route patterns, never paths: a path per user would fill Prometheus.
import { monitorEventLoopDelay } from "node:perf_hooks";
import { Counter, createMetrics, Gauge, type Registry } from "../lib/metrics.ts";
import { VERSION } from "../lib/version.ts";
import type { Gate } from "./gate.ts";
import { RequestMetrics } from "./request-metrics.ts";

export type ServiceMetrics = {
  readonly requests: RequestMetrics;
  /** One request was refused at the door. */
  refused(reason: "overloaded" | "timed_out"): void;
  /** The answer of `/metrics`. */
  response(): Promise<Response>;
  stop(): void;
};

export function serviceMetrics(service: string, version: string, gate: Gate): ServiceMetrics {
  const registry = createMetrics();
  const requests = new RequestMetrics();
  const refusals = new Counter({
    name: "http_requests_refused_total",
    help: "Requests answered 503 or 504 without being handled.",
    labelNames: ["reason"],
    registers: [registry],
  });
  gauge(registry, "http_requests_in_flight", "Requests being handled.", () => gate.inFlight);
  gauge(registry, "http_requests_queued", "Requests waiting for room.", () => gate.queued);
  const stop = runtimeMetrics(registry, service, version);
  return {
    requests,
    refused: (reason) => refusals.inc({ reason }),
    async response() {
      const text = `${await registry.metrics()}\n${requests.text()}`;
      return new Response(text, { headers: { "content-type": registry.contentType } });
    },
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
  gauge(registry, "event_loop_lag_seconds", "99th percentile since this was last read.", () => {
    const lag = delay.percentile(99) / 1e9;
    delay.reset();
    return Number.isFinite(lag) ? lag : 0;
  });
  return () => delay.disable();
}
