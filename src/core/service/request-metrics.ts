// The two metrics that every request touches, counted in plain numbers and made text when Prometheus asks: prom-client's own
// hash and check their labels each time, which is a third of a small request's whole cost.
import { LATENCY_BUCKETS } from "../lib/metrics.ts";

/** One method, route and status. `inBucket` has the requests of each bucket alone; larger ones than the last are in none. */
type Series = {
  readonly labels: string;
  readonly status: number;
  readonly inBucket: number[];
  count: number;
  seconds: number;
};

const METHODS = ["OTHER", "GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"];

export class RequestMetrics {
  // by route, then by status and method: no key has to be put together for a request
  readonly #routes = new Map<string, Map<number, Series>>();

  /** One request was answered. `seconds` counts from its arrival to the headers of its answer. */
  observe(method: string, route: string, status: number, seconds: number): void {
    // any caller can invent methods; he must not invent series
    const known = Math.max(0, METHODS.indexOf(method));
    let ofRoute = this.#routes.get(route);
    if (ofRoute === undefined) {
      ofRoute = new Map();
      this.#routes.set(route, ofRoute);
    }
    const key = status * METHODS.length + known;
    let series = ofRoute.get(key);
    if (series === undefined) {
      const labels = `method="${METHODS[known] ?? ""}",route="${escape(route)}"`;
      series = { labels, status, inBucket: LATENCY_BUCKETS.map(() => 0), count: 0, seconds: 0 };
      ofRoute.set(key, series);
    }
    series.count += 1;
    series.seconds += seconds;
    const bucket = LATENCY_BUCKETS.findIndex((bound) => seconds <= bound);
    if (bucket >= 0) series.inBucket[bucket] = (series.inBucket[bucket] ?? 0) + 1;
  }

  /** In the Prometheus text format. */
  text(): string {
    const lines = ["# HELP http_requests_total Requests answered.", "# TYPE http_requests_total counter"];
    for (const { labels, status, count } of this.#all())
      lines.push(`http_requests_total{${labels},status="${status}"} ${count}`);
    lines.push(
      "# HELP http_request_duration_seconds From a request's arrival to the headers of its answer.",
      "# TYPE http_request_duration_seconds histogram",
    );
    for (const [labels, { inBucket, count, seconds }] of this.#byRoute()) {
      let sum = 0;
      for (const [index, bound] of LATENCY_BUCKETS.entries()) {
        sum += inBucket[index] ?? 0;
        lines.push(`http_request_duration_seconds_bucket{${labels},le="${bound}"} ${sum}`);
      }
      lines.push(
        `http_request_duration_seconds_bucket{${labels},le="+Inf"} ${count}`,
        `http_request_duration_seconds_sum{${labels}} ${seconds}`,
        `http_request_duration_seconds_count{${labels}} ${count}`,
      );
    }
    return `${lines.join("\n")}\n`;
  }

  *#all(): Generator<Series> {
    for (const ofRoute of this.#routes.values()) yield* ofRoute.values();
  }

  /** Durations without the status: thirteen buckets each are enough. */
  #byRoute(): ReadonlyMap<string, Pick<Series, "inBucket" | "count" | "seconds">> {
    const sums = new Map<string, { inBucket: number[]; count: number; seconds: number }>();
    for (const { labels, inBucket, count, seconds } of this.#all()) {
      const sum = sums.get(labels);
      sums.set(labels, {
        inBucket: inBucket.map((value, index) => value + (sum?.inBucket[index] ?? 0)),
        count: count + (sum?.count ?? 0),
        seconds: seconds + (sum?.seconds ?? 0),
      });
    }
    return sums;
  }
}

function escape(label: string): string {
  return label.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
