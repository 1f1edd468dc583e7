import { describeError } from "../lib/errors.ts";
import type { Attempt } from "./error.ts";
import type { CallEvent } from "./events.ts";
import type { HeaderMap } from "./header.ts";

/** A request that is about to leave. */
export type Outgoing = {
  readonly service: string;
  readonly method: string;
  readonly url: string;
  /** 1 for the first. */
  readonly attempt: number;
  /** May be changed, for a token say. Names in lower case. */
  readonly headers: HeaderMap;
};

/** Another attempt is about to follow. */
export type Retrying = {
  readonly service: string;
  readonly method: string;
  readonly url: string;
  /** The attempt that failed. */
  readonly failed: Attempt;
  readonly waitMs: number;
};

/** Functions of the caller that are told what happens. `retry` and `done` only listen: what they throw is a warning. */
export type Hooks = {
  /** Before each attempt. When it throws, the call ends with `hook_failed`. */
  readonly request?: (outgoing: Outgoing) => void | Promise<void>;
  /** Before each wait for another attempt. */
  readonly retry?: (retrying: Retrying) => void;
  /** Once for each call: after its body was read, or after its headers when the body goes to the caller. */
  readonly done?: (event: CallEvent) => void;
};

/** Tells a hook that only listens. A call goes on as it would without it. */
export function notify<E>(name: string, hook: ((event: E) => void) | undefined, event: E): void {
  try {
    hook?.(event);
  } catch (error) {
    process.emitWarning(`the hook "${name}" of a smart client threw: ${describeError(error)}`, "SmartClientWarning");
  }
}

/** The hooks of both, `first`'s first. */
export function mergeHooks(first: Hooks, second: Hooks): Hooks {
  const { request } = first;
  const next = second.request;
  return {
    ...first,
    ...second,
    ...(request === undefined || next === undefined
      ? {}
      : {
          request: async (outgoing: Outgoing) => {
            await request(outgoing);
            await next(outgoing);
          },
        }),
    ...chain("retry", first.retry, second.retry),
    ...chain("done", first.done, second.done),
  };
}

function chain<K extends string, E>(
  name: K,
  first: ((event: E) => void) | undefined,
  second: ((event: E) => void) | undefined,
): Partial<Record<K, (event: E) => void>> {
  if (first === undefined || second === undefined) return {};
  const both = (event: E): void => {
    first(event);
    second(event);
  };
  return { [name]: both } as Record<K, (event: E) => void>;
}
