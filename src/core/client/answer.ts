// How a caller wants the answer. Text, bytes and JSON are read within the attempt, so that a stall or a cut in the body is
// retried like any other; a response or a stream goes to the caller, and from then on the answer is his.
import { handOver, type Handover } from "./handover.ts";
import { BodyProblem, readBytes, readText } from "./reading.ts";
import { type Schema, validate } from "./schema.ts";

export type Answer<T> = {
  /** The `Accept` header when the caller gives none. */
  readonly accept?: string;
  readonly handsOver: boolean;
  /** @throws BodyProblem, or what the runtime throws when the body is cut off */
  read(response: Response, handover: Handover): Promise<T>;
};

export const TEXT: Answer<string> = {
  handsOver: false,
  read: (response, { limit }) => readText(response, limit),
};

export const BYTES: Answer<Uint8Array<ArrayBuffer>> = {
  handsOver: false,
  read: (response, { limit }) => readBytes(response, limit),
};

export const RESPONSE: Answer<Response> = {
  handsOver: true,
  read: (response, handover) => Promise.resolve(handOver(response, handover)),
};

export const STREAM: Answer<ReadableStream<Uint8Array<ArrayBuffer>>> = {
  handsOver: true,
  read: async (response, handover) => handOver(response, handover).body ?? new Blob([]).stream(),
};

/** JSON; with a schema, checked and made into what the schema says. */
export function json<T>(schema: Schema<T> | undefined): Answer<T> {
  return {
    accept: "application/json",
    handsOver: false,
    async read(response, { limit }) {
      return parse(await readText(response, limit), response.headers.get("content-type"), schema);
    },
  };
}

/** @throws BodyProblem `bad_answer` */
export async function parse<T>(text: string, type: string | null, schema: Schema<T> | undefined): Promise<T> {
  const value = parseJson(text, type);
  if (schema === undefined) return value as T;
  const checked = await validate(schema, value);
  if (!checked.ok) throw new BodyProblem("bad_answer", `JSON that is not as expected: ${checked.issues}`);
  return checked.value;
}

function parseJson(text: string, type: string | null): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const what =
      text === "" ? "nothing where JSON was expected" : `${type ?? "something"} that is not JSON: ${excerpt(text)}`;
    throw new BodyProblem("bad_answer", what, error);
  }
}

function excerpt(text: string): string {
  const line = text.slice(0, 80).replaceAll(/\s+/g, " ");
  return JSON.stringify(text.length > 80 ? `${line}…` : line);
}
