// What a call returns: a promise of the response, that can be asked for its body instead.
import { type Answer, BYTES, json, parse, RESPONSE, STREAM, TEXT } from "./answer.ts";
import { SmartClientError } from "./error.ts";
import type { Schema } from "./schema.ts";

/** The outcome of `.safe()` on a body. */
export type Safe<T> =
  | { readonly ok: true; readonly value: T; readonly error?: undefined }
  | { readonly ok: false; readonly error: SmartClientError; readonly value?: undefined };

/** The outcome of `.safe()` on a request. */
export type SafeResponse =
  | { readonly ok: true; readonly response: Response; readonly error?: undefined }
  | { readonly ok: false; readonly error: SmartClientError; readonly response?: undefined };

/** A promise of a body. `.safe()` gives `{ok: true, value}` or `{ok: false, error}` instead of throwing. */
export type Reply<T> = Promise<T> & { safe(): Promise<Safe<T>> };

/** Sends the call. Throws at once when the call makes no sense. */
type Exchange = <T>(answer: Answer<T>) => Promise<T>;

/**
 * A request under way: a promise of the response. Asked at once for `.json()`, `.text()` or `.bytes()` instead, the body is
 * part of each attempt, so that one cut off is fetched again.
 */
export class SmartRequest extends Promise<Response> {
  /** What `then` gives is a plain promise. */
  static override get [Symbol.species](): PromiseConstructor {
    return Promise;
  }

  readonly #exchange: Exchange;
  readonly #settle: (response: Promise<Response>) => void;
  /** `response`: sent for the response; `body`: sent for the body only, until someone wants the response as well. */
  #begun: "no" | "response" | "body" = "no";

  constructor(exchange: Exchange) {
    let settle: (response: Promise<Response>) => void = () => undefined;
    super((resolve) => {
      settle = resolve;
    });
    this.#settle = settle;
    this.#exchange = exchange;
    // by then it was asked for its body, or it never will be; a call that nobody awaits is sent all the same
    queueMicrotask(() => {
      if (this.#begun === "no") this.#respond();
    });
  }

  // oxlint-disable-next-line unicorn/no-thenable -- it is a promise
  override then<A = Response, B = never>(
    onFulfilled?: ((response: Response) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#respond();
    return super.then(onFulfilled, onRejected);
  }

  /** The body as JSON; with a Standard Schema (zod, valibot …) checked, and of its type. */
  json<T = unknown>(schema?: Schema<T>): Reply<T> {
    return this.#read(json(schema), async (response) => parse(await response.text(), response, schema));
  }

  text(): Reply<string> {
    return this.#read(TEXT, (response) => response.text());
  }

  bytes(): Reply<Uint8Array<ArrayBuffer>> {
    return this.#read(BYTES, async (response) => new Uint8Array(await response.arrayBuffer()));
  }

  /** The body as it comes. */
  stream(): Reply<ReadableStream<Uint8Array<ArrayBuffer>>> {
    return this.#read(STREAM, async (response) => response.body ?? new Blob([]).stream());
  }

  /** Never throws for what happened to the call: `{ok: true, response}` or `{ok: false, error}`. */
  async safe(): Promise<SafeResponse> {
    const result = await settle(this);
    return result.ok ? { ok: true, response: result.value } : result;
  }

  #respond(): void {
    if (this.#begun === "response") return;
    this.#begun = "response";
    this.#settle(this.#send(RESPONSE));
  }

  #read<T>(answer: Answer<T>, later: (response: Response) => Promise<T>): Reply<T> {
    if (this.#begun === "response") return reply(this.then(later));
    this.#begun = "body";
    return reply(this.#send(answer));
  }

  #send<T>(answer: Answer<T>): Promise<T> {
    try {
      return this.#exchange(answer);
    } catch (error) {
      return Promise.reject(error);
    }
  }
}

function reply<T>(promise: Promise<T>): Reply<T> {
  const made = promise as Reply<T>;
  made.safe = safe;
  return made;
}

// one function for all replies, not one for each
function safe<T>(this: Promise<T>): Promise<Safe<T>> {
  return settle(this);
}

async function settle<T>(promise: Promise<T>): Promise<Safe<T>> {
  try {
    return { ok: true, value: await promise };
  } catch (error) {
    if (error instanceof SmartClientError) return { ok: false, error };
    throw error;
  }
}
