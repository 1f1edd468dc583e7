// Reading a body within a limit.

/** An answer that came, but is not what the caller can use. The exchange turns it into a SmartClientError. */
export class BodyProblem extends Error {
  readonly kind: "response_too_large" | "bad_answer";

  constructor(kind: BodyProblem["kind"], message: string, cause?: unknown) {
    super(message, { cause });
    this.kind = kind;
  }
}

type Bytes = Uint8Array<ArrayBuffer>;

/** Its length is known beforehand and within the limit: the runtime's own readers may have it. */
export function isWhole(response: Response, limit: number): boolean {
  const length = declaredLength(response);
  return limit === Number.POSITIVE_INFINITY || (length !== undefined && length > 0 && length <= limit);
}

/** @throws BodyProblem `response_too_large`, or what the runtime throws when the body is cut off */
export function readText(response: Response, limit: number): Promise<string> {
  if (isWhole(response, limit)) return response.text();
  return collect(response, limit).then((bytes) => new TextDecoder().decode(bytes));
}

/** @throws BodyProblem `response_too_large`, or what the runtime throws when the body is cut off */
export async function readBytes(response: Response, limit: number): Promise<Bytes> {
  return isWhole(response, limit) ? new Uint8Array(await response.arrayBuffer()) : collect(response, limit);
}

const ERROR_BODY_LIMIT = 64 * 1024;

/**
 * The body of an answer that is an error: read to its end, so that the connection can be used again, or let go when it is
 * longer than 64 KiB. Undefined when it did not come whole: the status is the news then, not the body.
 */
export async function readErrorBody(response: Response): Promise<string | undefined> {
  try {
    return await readText(response, ERROR_BODY_LIMIT);
  } catch (error) {
    return void error;
  }
}

/** Undefined when the length is not known beforehand, or is that of something compressed. */
export function declaredLength(response: Response): number | undefined {
  const length = response.headers.get("content-length");
  return length === null || response.headers.has("content-encoding") ? undefined : Number(length);
}

async function collect(response: Response, limit: number): Promise<Bytes> {
  const length = declaredLength(response);
  const { body } = response;
  if (body === null) return new Uint8Array();
  const tooLarge = new BodyProblem("response_too_large", `a body longer than ${limit} bytes`);
  if (length !== undefined && length > limit) {
    await body.cancel();
    throw tooLarge;
  }
  const reader = body.getReader();
  const chunks: Uint8Array[] = [];
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.byteLength;
    if (size > limit) {
      await reader.cancel();
      throw tooLarge;
    }
    chunks.push(value);
  }
  const whole = new Uint8Array(size);
  let offset = 0;
  for (const chunk of chunks) {
    whole.set(chunk, offset);
    offset += chunk.byteLength;
  }
  return whole;
}
