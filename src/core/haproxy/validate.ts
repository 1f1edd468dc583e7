// Asks HAProxy whether it would take a configuration, and finds out whose fault it is when not.
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../lib/atomic-file.ts";
import { describeError } from "../lib/errors.ts";
import { FILES, type Rendered } from "./render.ts";

export type Verdict =
  | { readonly kind: "valid" }
  /** Service → HAProxy's words. */
  | { readonly kind: "blamed"; readonly services: ReadonlyMap<string, string> }
  | { readonly kind: "invalid"; readonly error: string }
  /** HAProxy could not be asked: the disk is full, say. */
  | { readonly kind: "unasked"; readonly error: string };

/** `haproxy -c` on files written to `directory`, which is only for that. */
export async function validate(binary: string, rendered: Rendered, directory: string): Promise<Verdict> {
  try {
    await mkdir(directory, { recursive: true });
    for (const [name, text] of Object.entries(rendered.files)) {
      await writeFileAtomic(join(directory, name), text, { durable: false });
    }
  } catch (error) {
    return { kind: "unasked", error: `HAProxy could not be asked: ${describeError(error)}` };
  }
  const config = join(directory, FILES.config);
  const child = Bun.spawn([binary, "-c", "-f", config], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  const code = await child.exited;
  if (code === 0) return { kind: "valid" };
  return verdictOf(`${stderr}${stdout}`, rendered.lines);
}

/** Reads HAProxy's complaints: by line number, else by the name of a backend. */
export function verdictOf(output: string, lines: Rendered["lines"]): Verdict {
  const alerts = output
    .split("\n")
    .filter((line) => line.startsWith("[ALERT]"))
    .map((line) => line.replace(/^\[ALERT\]\s*\(\d+\) : (config : )?/, ""));
  const services = new Map<string, string>();
  for (const alert of alerts) {
    const service = serviceOfLine(Number(/\[[^\]]*:(\d+)\]/.exec(alert)?.[1]), lines) ?? serviceNamed(alert, lines);
    if (service !== undefined && !services.has(service)) services.set(service, tidy(alert));
  }
  if (services.size > 0) return { kind: "blamed", services };
  return { kind: "invalid", error: tidy(alerts[0] ?? output.trim()) };
}

function serviceOfLine(line: number, lines: Rendered["lines"]): string | undefined {
  for (const [service, [first, last]] of lines) if (line >= first && line <= last) return service;
  return undefined;
}

function serviceNamed(alert: string, lines: Rendered["lines"]): string | undefined {
  for (const [, name] of alert.matchAll(/'([^']+)-backend\b/g)) if (name !== undefined && lines.has(name)) return name;
  return undefined;
}

/** Without the path of a file that is gone when somebody reads this. */
function tidy(alert: string): string {
  return alert.replace(/(?:[Pp]arsing )?\[[^\]]*:(\d+)\]\s*:?\s*/, "line $1: ").slice(0, 500);
}
