// The JSON body of a request, bounded.
import { ProblemFault } from "../core/lib/http.ts";

/** No body of ours comes near this: a definition is a few hundred bytes. */
export const MAX_BODY_BYTES = 1_048_576;

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
  try {
    return JSON.parse(text);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new ProblemFault("invalid", `the body is not JSON: ${message}`, {
      extra: { errors: [{ path: "", message: "is not JSON" }] },
    });
  }
}

async function readText(request: Request): Promise<string> {
  if (Number(request.headers.get("content-length") ?? 0) > MAX_BODY_BYTES) throw tooLarge();
  if (request.body === null) return "";
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of request.body) {
    size += chunk.byteLength;
    // a chunked body says its length only by arriving
    if (size > MAX_BODY_BYTES) throw tooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function tooLarge(): ProblemFault {
  return new ProblemFault("too_large", `a body may have ${MAX_BODY_BYTES} bytes at most`);
}
