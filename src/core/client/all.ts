import { invalidRequest } from "./error.ts";

/** One of many; the signal aborts when another one failed. */
export type Task<T> = (context: { readonly signal: AbortSignal }) => PromiseLike<T> | T;

export type AllOptions = {
  /** How many run at a time. @default 16 */
  readonly concurrency?: number;
};

type Results<T> = { -readonly [K in keyof T]: T[K] extends Task<infer R> ? R : never };

/**
 * Runs tasks, at most `concurrency` at a time; the results stand where the tasks stood.
 * @throws the first failure; tasks not begun are dropped, and those under way see their signal abort
 */
export async function all<T extends readonly Task<unknown>[] | Readonly<Record<string, Task<unknown>>>>(
  tasks: T,
  options: AllOptions = {},
): Promise<Results<T>> {
  const { concurrency = 16 } = options;
  if (!Number.isSafeInteger(concurrency) || concurrency < 1)
    throw invalidRequest(`concurrency must be a whole number of 1 or more, not ${concurrency}`);
  const entries: [string, Task<unknown>][] = Object.entries(tasks);
  // keys now, so that they stand in the order of the tasks, not of the answers
  const results: Record<string, unknown> | unknown[] = Array.isArray(tasks)
    ? []
    : Object.fromEntries(entries.map(([key]) => [key, undefined]));
  const failure = new AbortController();
  let next = 0;
  const work = async (): Promise<void> => {
    for (;;) {
      const entry = entries[next];
      next += 1;
      if (entry === undefined || failure.signal.aborted) return;
      const [key, task] = entry;
      try {
        const result = await task({ signal: failure.signal });
        Object.assign(results, { [key]: result });
      } catch (error) {
        failure.abort(error);
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, entries.length) }, work));
  return results as Results<T>;
}
