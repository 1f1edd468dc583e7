// The body of an import: JSON lines, taken as they arrive. A whole realm is far larger than any other body, so it has bounds of
// its own.
import { setImmediate } from "node:timers/promises";
import { ProblemFault } from "../core/lib/http.ts";
import { type Backup, type BackupIssue, BackupReader } from "../core/model/backup.ts";
import { checkShape } from "./body.ts";

/** 100,000 instances are about 35 MB, and nothing else of a realm comes near that. */
const MAX_BYTES = 268_435_456;
/** The longest line is a service's settings, whose body was bounded when they were set; JSON may write a byte as six. */
const MAX_LINE = 8_388_608;
/** So many lines are checked in one go: a few milliseconds. */
const TURN = 500;
/** So many bad lines are named. */
const NAMED = 50;

/**
 * Reads and checks a whole backup; nothing is written before that.
 * @throws ProblemFault `invalid` with every bad line (the first 50 named), `too_large`, `wrong_type`
 */
export async function readBackup(request: Request): Promise<Backup> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/(?:x-ndjson|jsonl|x-jsonlines)\s*(?:;|$)/i.test(type)) {
    throw new ProblemFault("wrong_type", "the body must be JSON lines, with Content-Type: application/x-ndjson");
  }
  const reader = new BackupReader();
  let number = 0;
  for await (const line of linesOf(request)) {
    number += 1;
    // everybody else gets a turn: a large piece of the body may hold ten thousand lines
    if (number % TURN === 0) await setImmediate();
    if (line.trim() === "") continue;
    const value = parseLine(line);
    if (value instanceof Error) reader.addBroken(number, value.message);
    else reader.add(number, value);
  }
  const backup = reader.finish();
  if (backup === undefined) throw refusal(reader.issues);
  return backup;
}

function parseLine(line: string): unknown {
  try {
    const value: unknown = JSON.parse(line);
    checkShape(value, 1);
    return value;
  } catch (error) {
    if (error instanceof ProblemFault) return error;
    return new Error("is not JSON", { cause: error });
  }
}

async function* linesOf(request: Request): AsyncGenerator<string> {
  if (Number(request.headers.get("content-length") ?? 0) > MAX_BYTES) throw tooLarge();
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let size = 0;
  let rest = "";
  for await (const chunk of chunksOf(request)) {
    size += chunk.byteLength;
    // a chunked body says its length only by arriving
    if (size > MAX_BYTES) throw tooLarge();
    const lines = (rest + decode(decoder, chunk)).split("\n");
    rest = lines.pop() ?? "";
    if (rest.length > MAX_LINE) throw new ProblemFault("too_large", `a line may have ${MAX_LINE} characters at most`);
    yield* lines;
  }
  rest += decode(decoder);
  if (rest !== "") yield rest;
}

async function* chunksOf({ body }: Request): AsyncGenerator<Uint8Array> {
  if (body === null) return;
  try {
    yield* body;
  } catch (error) {
    throw new ProblemFault("invalid", "the body ended early", { cause: error });
  }
}

function decode(decoder: TextDecoder, chunk?: Uint8Array): string {
  try {
    return chunk === undefined ? decoder.decode() : decoder.decode(chunk, { stream: true });
  } catch (error) {
    throw new ProblemFault("invalid", "the body is not UTF-8", { cause: error });
  }
}

function tooLarge(): ProblemFault {
  return new ProblemFault("too_large", `a backup may have ${MAX_BYTES} bytes at most`);
}

function refusal(issues: readonly BackupIssue[]): ProblemFault {
  const errors = issues
    .toSorted((a, b) => a.line - b.line)
    .slice(0, NAMED)
    .map(({ line, message }) => ({ path: line === 0 ? "the file" : `line ${line}`, message }));
  const first = errors[0];
  const more = issues.length === 1 ? "" : `, and ${issues.length - 1} more`;
  const detail = `nothing was written, since this backup is not sound: ${first?.path} ${first?.message}${more}`;
  return new ProblemFault("invalid", detail, { extra: { errors } });
}
