// How a caller wants the answer. Text, bytes and JSON are read within the attempt, so that a stall or a cut in the body is
// retried like any other; a response or a stream goes to the caller (see handover.ts).
import { type Handover, handOver } from "./handover.ts";
import { BodyProblem, isWhole, readBytes, readText } from "./reading.ts";
import { type Schema, validate } from "./schema.ts";

export interface Answer<T> {
  /** The `Accept` header when the caller gives none. */
  readonly accept: string | undefined;
  /**
   * @param limit bytes
   * @param keep called when the body goes on coming after this
   * @throws BodyProblem, or what the runtime throws when the body is cut off
   */
  take(response: Response, limit: number, keep: () => Handover): T | Promise<T>;
}

export const TEXT: Answer<string> = { accept: undefined, take: readText };

export const BYTES: Answer<Uint8Array<ArrayBuffer>> = { accept: undefined, take: readBytes };

export const RESPONSE: Answer<Response> = { accept: undefined, take: handOver };

export const STREAM: Answer<ReadableStream<Uint8Array<ArrayBuffer>>> = {
  accept: undefined,
  take: async (response, limit, keep) => (await handOver(response, limit, keep)).body ?? new Blob([]).stream(),
};

/** JSON; with a schema, checked and made into what the schema says. */
export function json<T>(schema: Schema<T> | undefined): Answer<T> {
  return {
    accept: "application/json",
    take(response, limit) {
      if (!isWhole(response, limit) || !isJson(response)) return parseText(response, limit, schema);
      // the runtime's own reader, since it can be measured; a SyntaxError of it becomes a `bad_answer`
      const value: Promise<unknown> = response.json();
      return schema === undefined ? (value as Promise<T>) : value.then((found) => check(found, schema));
    },
  };
}

function isJson(response: Response): boolean {
  return response.headers.get("content-type")?.startsWith("application/json") === true;
}

async function parseText<T>(response: Response, limit: number, schema: Schema<T> | undefined): Promise<T> {
  return parse(await readText(response, limit), response, schema);
}

/** @throws BodyProblem `bad_answer` */
export function parse<T>(text: string, response: Response, schema: Schema<T> | undefined): T | Promise<T> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const type = response.headers.get("content-type") ?? "something";
    const what = text === "" ? "nothing where JSON was expected" : `${type} that is not JSON: ${excerpt(text)}`;
    throw new BodyProblem("bad_answer", what, error);
  }
  return schema === undefined ? (value as T) : check(value, schema);
}

async function check<T>(value: unknown, schema: Schema<T>): Promise<T> {
  const checked = await validate(schema, value);
  if (!checked.ok) throw new BodyProblem("bad_answer", `JSON that is not as expected: ${checked.issues}`);
  return checked.value;
}

function excerpt(text: string): string {
  const line = text.slice(0, 80).replaceAll(/\s+/g, " ");
  return JSON.stringify(text.length > 80 ? `${line}…` : line);
}
