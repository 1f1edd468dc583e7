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
 * A request under way. Awaited, it is the response, whose body is read under the same deadline; `.json()`, `.text()`,
 * `.bytes()` called at once make the body part of each attempt, so that a body cut off is retried too.
 */
export class SmartRequest implements PromiseLike<Response> {
  readonly #exchange: Exchange;
  #response: Promise<Response> | undefined;
  #begun = false;

  constructor(exchange: Exchange) {
    this.#exchange = exchange;
    // a call that nobody awaits is sent all the same
    queueMicrotask(() => {
      if (!this.#begun) void this.#asResponse();
    });
  }

  // oxlint-disable-next-line unicorn/no-thenable -- it is one
  then<A = Response, B = never>(
    onFulfilled?: ((response: Response) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.#asResponse().then(onFulfilled, onRejected);
  }

  catch<B = never>(onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<Response | B> {
    return this.#asResponse().catch(onRejected);
  }

  finally(onFinally?: (() => void) | null): Promise<Response> {
    return this.#asResponse().finally(onFinally);
  }

  /** The body as JSON; with a Standard Schema (zod, valibot …) checked, and of its type. */
  json<T = unknown>(schema?: Schema<T>): Reply<T> {
    return reply(this.#read(json(schema), async (response) => parse(await response.text(), response, schema)));
  }

  text(): Reply<string> {
    return reply(this.#read(TEXT, (response) => response.text()));
  }

  bytes(): Reply<Uint8Array<ArrayBuffer>> {
    return reply(this.#read(BYTES, async (response) => new Uint8Array(await response.arrayBuffer())));
  }

  /** The body as it comes. */
  stream(): Reply<ReadableStream<Uint8Array<ArrayBuffer>>> {
    return reply(this.#read(STREAM, async (response) => response.body ?? new Blob([]).stream()));
  }

  /** Never throws for what happened to the call: `{ok: true, response}` or `{ok: false, error}`. */
  async safe(): Promise<SafeResponse> {
    const result = await settle(this.#asResponse());
    return result.ok ? { ok: true, response: result.value } : result;
  }

  #asResponse(): Promise<Response> {
    this.#begun = true;
    this.#response ??= this.#send(RESPONSE);
    return this.#response;
  }

  #send<T>(answer: Answer<T>): Promise<T> {
    try {
      return this.#exchange(answer);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #read<T>(answer: Answer<T>, later: (response: Response) => Promise<T>): Promise<T> {
    if (this.#response !== undefined) return this.#response.then(later);
    this.#begun = true;
    return this.#send(answer);
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
