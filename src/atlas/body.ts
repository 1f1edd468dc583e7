// The JSON body of a request, bounded.
import { ProblemFault } from "../core/lib/http.ts";

/** No body of ours comes near this: a definition is a few hundred bytes. */
export const MAX_BODY_BYTES = 1_048_576;
const MAX_DEPTH = 100;
const UTF8 = new TextDecoder("utf-8", { fatal: true });

/**
 * An empty body counts as `{}`, so that a PUT may say nothing where everything has a default.
 * @throws ProblemFault `wrong_type`, `too_large`, or `invalid` when it is not JSON
 */
export async function readBody(request: Request): Promise<unknown> {
  const text = await readText(request);
  if (text === "") return {};
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i.test(type)) {
    throw new ProblemFault(
      "wrong_type",
      `the body must be JSON, with Content-Type: application/json${type === "" ? "" : `, not ${type}`}`,
    );
  }
  const value = parse(text);
  checkShape(value, 1);
  return value;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new ProblemFault("invalid", `the body is not JSON: ${message}`, {
      extra: { errors: [{ path: "", message: "is not JSON" }] },
    });
  }
}

/** What schemas cannot see: nesting that overflows the stack of who walks it, and a name that they drop in silence. */
export function checkShape(value: unknown, depth: number): void {
  if (typeof value !== "object" || value === null) return;
  if (depth > MAX_DEPTH) throw new ProblemFault("invalid", `the body nests deeper than ${MAX_DEPTH} levels`);
  if (Object.hasOwn(value, "__proto__")) throw new ProblemFault("invalid", "nothing can be named __proto__");
  for (const part of Object.values(value)) checkShape(part, depth + 1);
}

async function readText(request: Request): Promise<string> {
  const length = request.headers.get("content-length");
  if (Number(length ?? 0) > MAX_BODY_BYTES) throw tooLarge();
  const isCounted = length !== null && !request.headers.has("transfer-encoding");
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    // Bun takes no more than was said; a stream would be a tenth of the work of a write
    if (isCounted) return UTF8.decode(await request.arrayBuffer());
    if (request.body === null) return "";
    for await (const chunk of request.body) {
      size += chunk.byteLength;
      // a chunked body says its length only by arriving
      if (size > MAX_BODY_BYTES) throw tooLarge();
      chunks.push(chunk);
    }
    return UTF8.decode(Buffer.concat(chunks));
  } catch (error) {
    if (error instanceof ProblemFault) throw error;
    // the caller went away, or sent bytes that would be stored as question marks
    throw new ProblemFault("invalid", "the body ended early, or is not UTF-8", { cause: error });
  }
}

function tooLarge(): ProblemFault {
  return new ProblemFault("too_large", `a body may have ${MAX_BODY_BYTES} bytes at most`);
}
