import { expect, test } from "bun:test";
import { RequestMetrics } from "./request-metrics.ts";

test("requests are counted by method, route and status, durations without the status", () => {
  const metrics = new RequestMetrics();
  metrics.observe("GET", "/teams/:id", 200, 0.002);
  metrics.observe("GET", "/teams/:id", 404, 0.2);
  metrics.observe("GET", "/teams/:id", 200, 60);
  const lines = metrics.text().split("\n");
  expect(lines).toContain('http_requests_total{method="GET",route="/teams/:id",status="200"} 2');
  expect(lines).toContain('http_requests_total{method="GET",route="/teams/:id",status="404"} 1');
  expect(lines).toContain('http_request_duration_seconds_bucket{method="GET",route="/teams/:id",le="0.001"} 0');
  expect(lines).toContain('http_request_duration_seconds_bucket{method="GET",route="/teams/:id",le="0.0025"} 1');
  expect(lines).toContain('http_request_duration_seconds_bucket{method="GET",route="/teams/:id",le="10"} 2');
  expect(lines).toContain('http_request_duration_seconds_bucket{method="GET",route="/teams/:id",le="+Inf"} 3');
  expect(lines).toContain('http_request_duration_seconds_count{method="GET",route="/teams/:id"} 3');
});

test("callers who invent methods make no series, and a quote in a route breaks no line", () => {
  const metrics = new RequestMetrics();
  for (const method of ["BREW", "WHEN"]) metrics.observe(method, '/a"b', 404, 0.1);
  expect(metrics.text()).toContain('http_requests_total{method="OTHER",route="/a\\"b",status="404"} 2');
  expect(metrics.text()).not.toContain("BREW");
});
