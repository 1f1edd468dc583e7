/** One thing at a time, in order: the owner of a file, a socket or a process runs its work through one of these. */
export interface Serial {
  /** Runs `work` after everything queued before it; its failure is the caller's and stops nobody behind it. */
  run<T>(work: () => Promise<T>): Promise<T>;
  /** Resolves when everything queued so far has ended. */
  idle(): Promise<void>;
}

export function serial(): Serial {
  let tail: Promise<unknown> = Promise.resolve();
  return {
    run(work) {
      const result = tail.then(work);
      tail = result.catch(() => undefined);
      return result;
    },
    async idle() {
      await tail;
    },
  };
}
