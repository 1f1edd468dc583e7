// curl, through the smart client: the same policies, seen from the command line.
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { text as readAll } from "node:stream/consumers";
import type { Attempt, Hooks, ServiceStats } from "../core/client/index.ts";
import { describeError } from "../core/lib/errors.ts";
import { type Command, defineCommand, usageError } from "./command.ts";
import { EXIT } from "./exit-codes.ts";
import { duration, option, text, texts, toggle, url } from "./options.ts";

export const call: Command = defineCommand({
  name: "call",
  summary: "call a service, as curl would, through the smart client",
  arguments: [{ name: "URL", describe: "service://NAME/path, or http(s)://…" }],
  examples: [
    "smartstack call service://identity/teams",
    `smartstack call -d '{"name":"core"}' service://identity/teams`,
    "smartstack call -v -X DELETE -H 'Authorization: Bearer …' service://identity/teams/7",
  ],
  options: {
    request: { ...option(text("METHOD"), "method, default GET, or POST with --data"), short: "X" },
    header: { ...option(texts("NAME: VALUE"), "a header; may be repeated"), short: "H" },
    data: { ...option(text("BODY"), "body; @FILE reads a file, @- standard input"), short: "d" },
    include: option(toggle, "print the status line and headers before the body", false, "i"),
    verbose: option(toggle, "tell on standard error of each attempt, the budget and the times", false, "v"),
    router: option(url, "the host's HAProxy, default http://127.0.0.1:4000"),
    timeout: option(duration, "for the whole call, retries and body included", 10_000),
    attemptTimeout: option(duration, "for one attempt, its body included", 2_000),
    idempotencyKey: option(text("KEY"), "makes POST and PATCH safe to retry, if the service knows it"),
  },
  async run({ values, args }) {
    const [target = ""] = args;
    const { createSmartClient } = await import("../core/client/index.ts");
    const client = createSmartClient();
    const began = performance.now();
    const say = (line: string): void => {
      if (values.verbose) process.stderr.write(`${line}\n`);
    };
    const head = (status: number, headers: Headers): void => {
      const lines = [`HTTP ${status}`, ...Array.from(headers, ([name, value]) => `${name}: ${value}`)];
      for (const line of lines) say(`< ${line}`);
      if (values.include) process.stdout.write(`${lines.join("\n")}\n\n`);
    };
    const body = values.data === undefined ? undefined : await readData(values.data);
    const result = await client
      .request(target, {
        method: values.request ?? (body === undefined ? "GET" : "POST"),
        headers: { ...typeOf(body), ...parseHeaders(values.header ?? []) },
        ...(body === undefined ? {} : { body }),
        ...(values.router === undefined ? {} : { router: values.router }),
        ...(values.idempotencyKey === undefined ? {} : { idempotencyKey: values.idempotencyKey }),
        timeout: values.timeout,
        attemptTimeout: values.attemptTimeout,
        hooks: narrator(say, (service) => client.stats(service)),
      })
      .safe();
    if (!result.ok) {
      const { error } = result;
      if (error.kind === "invalid_request") throw usageError(call, error.message);
      if (error.response !== undefined) {
        head(error.response.status, error.response.headers);
        await write(error.response.body ?? "");
      }
      throw error;
    }
    head(result.response.status, result.response.headers);
    let size = 0;
    for await (const chunk of result.response.body ?? []) {
      size += chunk.byteLength;
      await write(chunk);
    }
    say(`* ${size} bytes, ${Math.round(performance.now() - began)} ms in all`);
    return EXIT.done;
  },
});

/** What `--verbose` tells while the call runs. */
function narrator(say: (line: string) => void, statsOf: (service: string) => ServiceStats): Hooks {
  let told = 0;
  return {
    request({ method, url, headers, attempt }) {
      // a router that refuses is asked many times for one attempt
      if (attempt === told) return;
      told = attempt;
      say(`> ${method} ${url}`);
      if (attempt > 1) return;
      for (const [name, value] of Object.entries(headers)) say(`> ${name}: ${value}`);
    },
    retry: ({ failed, waitMs }) => say(`* ${describeAttempt(failed)}; again in ${Math.round(waitMs)} ms`),
    done({ service, attempts }) {
      const last = attempts.at(-1);
      if (last !== undefined) say(`* ${describeAttempt(last)}`);
      const { sent, retriesAvailable, circuitBreaker } = statsOf(service);
      say(`* sent ${sent}, ${retriesAvailable} retries left in the budget, circuit breaker ${circuitBreaker.kind}`);
    },
  };
}

/** `attempt 2: 503 from host001:5004, 12 ms`. */
function describeAttempt(attempt: Attempt): string {
  const { number, status, instance, outcome, code, sent, tookMs, times = 1 } = attempt;
  const what = status === undefined ? `${outcome}${code === undefined ? "" : ` ${code}`}, sent: ${sent}` : `${status}`;
  const from = instance === undefined ? "" : ` from ${instance}`;
  return `attempt ${number}: ${what}${from}, ${tookMs} ms${times === 1 ? "" : `, ${times} times`}`;
}

async function readData(data: string): Promise<string> {
  if (!data.startsWith("@")) return data;
  if (data === "@-") return readAll(process.stdin);
  try {
    return await readFile(data.slice(1), "utf8");
  } catch (error) {
    throw usageError(call, `--data: ${describeError(error)}`);
  }
}

/** Most bodies are JSON; a header says otherwise. */
function typeOf(body: string | undefined): Record<string, string> {
  if (body === undefined) return {};
  try {
    JSON.parse(body);
    return { "content-type": "application/json" };
  } catch (error) {
    if (error instanceof SyntaxError) return { "content-type": "text/plain" };
    throw error;
  }
}

/** `Name: value` lines; the client checks what is in them. */
function parseHeaders(lines: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    lines.map((line) => {
      const colon = line.indexOf(":");
      if (colon < 1) throw usageError(call, `--header wants "NAME: VALUE", not "${line}"`);
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    }),
  );
}

async function write(chunk: string | Uint8Array): Promise<void> {
  if (chunk.length > 0 && !process.stdout.write(chunk)) await once(process.stdout, "drain");
}
