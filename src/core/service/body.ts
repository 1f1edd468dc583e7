// Bodies of a bounded size. The server itself would refuse a large one without a word that a program can read.
import { problem, type HttpProblem } from "./problems.ts";

function tooLarge(maxBytes: number): HttpProblem {
  return problem(413, `the body is larger than ${maxBytes} bytes`);
}

/** @throws HttpProblem 413 when the request says that its body is larger than `maxBytes` */
export function checkDeclaredLength(headers: Headers, maxBytes: number): void {
  const declared = headers.get("content-length");
  if (declared !== null && Number(declared) > maxBytes) throw tooLarge(maxBytes);
}

/** The same request, whose body ends in a 413 when it turns out larger than `maxBytes`: for bodies without a length. */
export function limitBody(request: Request, maxBytes: number): Request {
  if (request.body === null || request.headers.has("content-length")) return request;
  let seen = 0;
  const counted = request.body.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        seen += chunk.byteLength;
        if (seen > maxBytes) controller.error(tooLarge(maxBytes));
        else controller.enqueue(chunk);
      },
    }),
  );
  return new Request(request.url, {
    method: request.method,
    headers: request.headers,
    body: counted,
    signal: request.signal,
  });
}

/**
 * The body as JSON.
 * @throws HttpProblem 415 when it says to be something else, 400 when it is no JSON
 */
export async function readJson(request: Request): Promise<unknown> {
  const type = request.headers.get("content-type");
  if (type !== null && !/^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i.test(type))
    throw problem(415, `the body must be application/json, not ${type}`);
  const text = await request.text();
  try {
    return JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw problem(400, text === "" ? "the body is missing; it must be JSON" : `the body is no JSON: ${error.message}`, {
      errors: [{ path: "body", message: "must be JSON" }],
    });
  }
}
