// Bringing local instances to Atlas, and keeping them there: each instance has its own line of work, one step at a time,
// repeated until Atlas has it. What the steps are is decided in local-instance.ts.
import { z } from "zod";
import { type AtlasClient, AtlasProblem, isRefusedAccess } from "../core/api/atlas-client.ts";
import { fullJitter } from "../core/lib/backoff.ts";
import type { Clock } from "../core/lib/clock.ts";
import { describeError } from "../core/lib/errors.ts";
import { ProblemFault } from "../core/lib/http.ts";
import type { Logger } from "../core/lib/logger.ts";
import { type Serial, serial } from "../core/lib/serial.ts";
import { rejectionSchema } from "../core/model/agent.ts";
import { instanceId } from "../core/model/names.ts";
import { type Position, positionSchema } from "../core/model/position.ts";
import type { LocalInstance, Step } from "./local-instance.ts";

const RETRY = { baseMs: 200, capMs: 5_000 };
/** The same where Atlas does not take this host's token: a person has to do something first. */
const REFUSED = { baseMs: 15_000, capMs: 15_000 };
/** Between two looks at how far a change has come, in ms. */
const POLL_MS = 50;
/** For an answer of Atlas, in ms, beyond what Atlas was asked to wait. */
const ANSWER_MS = 5_000;

/** The next step of an instance, with the instance as it was when the step was made. */
export type Task = { readonly local: LocalInstance; readonly step: Step };

export type RegistrarOptions = {
  readonly host: string;
  readonly client: AtlasClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random?: () => number;
  /** What Atlas has to be told of this instance now; undefined: nothing. */
  readonly task: (id: string) => Task | undefined;
  /** Called as soon as Atlas accepted a step, before the next one is asked for. */
  readonly accepted: (task: Task, position: Position) => void;
  /** Called when Atlas will never take a definition: it is not told again. */
  readonly refused: (task: Task) => void;
};

/** How many agents run a change. */
type AppliedCount = { readonly applied: number; readonly total: number };

export interface Registrar {
  /** Something about the instance changed: looks whether Atlas has to be told, and tells it until it has it. */
  look(id: string): void;
  /**
   * Tells Atlas all of the instance and waits until every agent runs it.
   * @throws ProblemFault `not_applied` (with `pending` and `unreachable`) when the time is up, also because Atlas is away;
   * `rejected` when an agent refuses
   */
  settleApplied(id: string, timeoutMs: number): Promise<Position & AppliedCount>;
  /** Looks, and resolves after the attempt, or the timeout: with true when Atlas has all of the instance. */
  settled(id: string, timeoutMs: number): Promise<boolean>;
  /** Why Atlas refused what it was told last about the instance, or undefined. */
  problem(id: string): string | undefined;
  /** Forgets an instance that is gone. */
  forget(id: string): void;
  /** Atlas is back: what waits for its next attempt goes now. */
  retry(): void;
  stop(): Promise<void>;
}

type Line = {
  readonly work: Serial;
  looking: boolean;
  again: boolean;
  /** Why Atlas refused, by what it refused: `definition` or `instance`. */
  readonly problems: Map<"definition" | "instance", string>;
  /** The last position that Atlas answered, for those who wait until it is applied. */
  position: Position | undefined;
  readonly waiting: Set<() => void>;
};

const writtenSchema = positionSchema.extend({
  changed: z.boolean().default(true),
  applied: z.int().optional(),
  total: z.int().optional(),
});
type Written = z.output<typeof writtenSchema>;

const changeSchema = z.object({
  applied: z.int(),
  total: z.int(),
  pending: z.array(z.string()),
  unreachable: z.array(z.string()).default([]),
  rejected: z.array(rejectionSchema.extend({ host: z.string() })).default([]),
});

export function createRegistrar(options: RegistrarOptions): Registrar {
  const { host, client, clock, logger, random = Math.random, task, accepted, refused } = options;
  const lines = new Map<string, Line>();
  const ending = new AbortController();
  let retrying = new AbortController();

  const lineOf = (id: string): Line => {
    const known = lines.get(id);
    if (known !== undefined) return known;
    const line: Line = {
      work: serial(),
      looking: false,
      again: false,
      problems: new Map(),
      position: undefined,
      waiting: new Set(),
    };
    lines.set(id, line);
    return line;
  };

  /** Every step there is, one after the other. @returns the answer to the last one; undefined: there was none */
  const tellAll = async (id: string, line: Line, waitMs?: () => number): Promise<Written | undefined> => {
    let last: Written | undefined;
    try {
      for (let next = task(id); next !== undefined && !ending.signal.aborted; next = task(id)) {
        last = (await tell(next, line, waitMs?.())) ?? last;
      }
      line.position = last ?? line.position;
      return last;
    } finally {
      for (const wake of line.waiting) wake();
    }
  };

  const tell = async (next: Task, line: Line, waitMs: number | undefined): Promise<Written | undefined> => {
    const { id, service } = next.local;
    const about = next.step.kind === "define" ? "definition" : "instance";
    try {
      const written = await write(next, waitMs);
      line.problems.delete(about);
      accepted(next, written);
      return written;
    } catch (error) {
      const problem = describeError(error);
      if (error instanceof AtlasProblem && line.problems.get(about) !== problem) logger.warn({ id, service }, problem);
      line.problems.set(about, problem);
      // a definition that Atlas will never take must not keep the instance out of the registry
      const hopeless = error instanceof AtlasProblem && (error.status === 400 || error.status === 409);
      if (next.step.kind !== "define" || !hopeless) throw error;
      refused(next);
      return undefined;
    }
  };

  const write = ({ local, step }: Task, waitMs: number | undefined): Promise<Written> => {
    const service = `/v1/services/${local.service}`;
    const instance = `${service}/instances/${encodeURIComponent(local.instance)}`;
    const wait = waitMs === undefined ? {} : { wait: "applied", timeout: `${waitMs}ms` };
    const timeoutMs = ANSWER_MS + (waitMs ?? 0);
    const ask = (path: string, method: "PUT" | "PATCH" | "DELETE", body?: unknown): Promise<Written> =>
      client.request(path, { method, body, schema: writtenSchema, timeoutMs, signal: ending.signal });
    switch (step.kind) {
      case "define":
        return ask(`${service}?publish=true`, "PUT", step.definition);
      case "put":
        return ask(withQuery(instance, wait), "PUT", step.put);
      case "patch":
        return ask(withQuery(instance, { agent: host, ...wait }), "PATCH", step.patch);
      case "delete":
        return ask(
          withQuery(instance, { agent: host, ...(local.left === "expired" ? { expired: "true" } : {}) }),
          "DELETE",
        );
    }
  };

  const lookOnce = async (id: string, line: Line): Promise<void> => {
    for (let failures = 0; !ending.signal.aborted; failures += 1) {
      try {
        await line.work.run(() => tellAll(id, line));
        return;
      } catch (error) {
        logger.debug({ id }, `Atlas was not told: ${describeError(error)}`);
        await pause(fullJitter(failures, { ...(isRefusedAccess(error) ? REFUSED : RETRY), random }));
      }
    }
  };

  const pause = async (ms: number): Promise<void> => {
    await clock.sleep(ms, AbortSignal.any([ending.signal, retrying.signal])).catch(endOfWait);
  };

  const look = (id: string): void => {
    const line = lineOf(id);
    line.again = true;
    if (line.looking || ending.signal.aborted) return;
    line.looking = true;
    const run = async (): Promise<void> => {
      while (line.again) {
        line.again = false;
        await lookOnce(id, line);
      }
      line.looking = false;
    };
    void run();
  };

  const waitApplied = async (id: string, revision: number, deadline: number): Promise<AppliedCount> => {
    for (;;) {
      const change = await client.request(`/v1/changes/${revision}`, {
        schema: changeSchema,
        timeoutMs: ANSWER_MS,
        signal: ending.signal,
      });
      const { applied, total, pending, unreachable } = change;
      const rejected = change.rejected.filter((rejection) => concerns(rejection, id));
      if (rejected.length > 0) throw rejectedProblem(rejected);
      if (pending.length === 0 && unreachable.length === 0) return { applied, total };
      if (clock.now() >= deadline) throw notApplied(`${applied} of ${total} agents run it`, { pending, unreachable });
      await clock.sleep(POLL_MS, ending.signal);
    }
  };

  const settleApplied = async (id: string, timeoutMs: number): Promise<Position & AppliedCount> => {
    const line = lineOf(id);
    const deadline = clock.now() + timeoutMs;
    const left = (): number => Math.max(0, deadline - clock.now());
    for (let failures = 0; ; failures += 1) {
      try {
        const written = await line.work.run(() => tellAll(id, line, () => Math.max(1, Math.round(left()))));
        const position = written ?? line.position;
        if (position === undefined) throw new ProblemFault("unavailable", "Atlas has not heard of this instance");
        const { generation, revision } = position;
        // Atlas waits with a write that changes something; told before, perhaps with its answer lost, it has to be asked
        const count =
          written?.changed === true && written.applied !== undefined && written.total !== undefined
            ? { applied: written.applied, total: written.total }
            : await waitApplied(id, revision, deadline);
        return { generation, revision, ...count };
      } catch (error) {
        if (error instanceof ProblemFault) throw error;
        if (error instanceof AtlasProblem && error.code === "rejected") throw rejectedProblem(error.body.rejected);
        if (error instanceof AtlasProblem && error.code === "not_applied") {
          throw notApplied(error.message, { pending: error.body.pending, unreachable: error.body.unreachable });
        }
        if (left() === 0 || ending.signal.aborted) {
          throw notApplied(`Atlas could not be told: ${describeError(error)}`, { pending: [], unreachable: [] });
        }
        await pause(Math.min(left(), fullJitter(failures, { ...RETRY, random })));
      }
    }
  };

  return {
    look,
    settleApplied,
    settled(id, timeoutMs) {
      if (task(id) === undefined) return Promise.resolve(true);
      const line = lineOf(id);
      return new Promise<boolean>((resolve) => {
        const finish = (): void => {
          line.waiting.delete(finish);
          cancel();
          resolve(task(id) === undefined);
        };
        const cancel = clock.after(timeoutMs, finish);
        line.waiting.add(finish);
        look(id);
      });
    },
    problem: (id) => [...(lines.get(id)?.problems.values() ?? [])].join("; ") || undefined,
    forget: (id) => {
      lines.delete(id);
    },
    retry() {
      retrying.abort(new DOMException("Atlas is back", "AbortError"));
      retrying = new AbortController();
    },
    async stop() {
      ending.abort(new DOMException("stopped", "AbortError"));
      await Promise.all([...lines.values()].map(({ work }) => work.idle()));
    },
  };
}

function withQuery(path: string, query: Readonly<Record<string, string>>): string {
  const text = new URLSearchParams(query).toString();
  return text === "" ? path : `${path}?${text}`;
}

/** Whether a refusal is about that instance, or all of its service: others are not the writer's. */
function concerns({ service, instance }: { service: string; instance?: string | undefined }, id: string): boolean {
  return instance === undefined ? id.startsWith(`${service}/`) : id === instanceId(service, instance);
}

function notApplied(message: string, extra: Readonly<Record<string, unknown>>): ProblemFault {
  return new ProblemFault("not_applied", message, { extra });
}

function rejectedProblem(rejected: unknown): ProblemFault {
  return new ProblemFault("rejected", "an agent's HAProxy refuses it", { extra: { rejected } });
}

function endOfWait(): void {
  // ended early, by stop or because Atlas is back: whoever waited looks himself
}
