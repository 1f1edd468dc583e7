// `?wait=applied`: a write that answers when every agent runs it.
import type { Clock } from "../core/lib/clock.ts";
import { ProblemFault } from "../core/lib/http.ts";
import type { Rejection } from "../core/model/agent.ts";
import type { Position } from "../core/model/position.ts";
import type { Agents, AgentStatus } from "./agents.ts";

/** An agent's refusal, with who said it. */
type HostRejection = Rejection & { readonly host: string };

/** Whose refusal counts: an agent may refuse another service at the same time, or another instance of this one. */
export type Subject = { readonly service: string; readonly instance?: string };

/** How far a revision has come. */
export type Progress = {
  readonly applied: number;
  readonly total: number;
  /** Connected, and not there yet. */
  readonly pending: readonly string[];
  /** Not connected, in grace or held, or of a replica that does not answer: their HAProxy may route by an older revision. */
  readonly unreachable: readonly string[];
  readonly rejected: readonly HostRejection[];
};

/** Where a begun wait is: its write has not answered yet, or it is known what it wrote. */
type Wait = { position: Position | undefined };

/** What is waited for at one replica. The others must know, since their agents ack at once only when somebody waits. */
export type OpenWaits = {
  /** Waits whose write is under way: any change may be theirs. */
  readonly writes: number;
  /** What the others wrote. */
  readonly positions: readonly Position[];
};

/** What to wait for. */
export type WaitTarget = {
  readonly position: Position;
  readonly subject: Subject;
  readonly timeoutMs: number;
  /** The caller went away. */
  readonly signal: AbortSignal;
};

export class Waits {
  readonly #agents: Agents;
  readonly #clock: Clock;
  readonly #open = new Set<Wait>();
  readonly #listeners = new Set<() => void>();
  readonly #stopping = new AbortController();

  constructor(agents: Agents, clock: Clock) {
    this.#agents = agents;
    this.#clock = clock;
  }

  /** Called whenever a wait begins, learns what it waits for, or ends. */
  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** Announces a wait before its write, since the change may leave before the write has answered. */
  begin(): { readonly applied: (target: WaitTarget) => Promise<Progress>; readonly end: () => void } {
    const wait: Wait = { position: undefined };
    this.#open.add(wait);
    this.#changed();
    return {
      applied: (target) => {
        wait.position = target.position;
        this.#changed();
        return this.#applied(target);
      },
      end: () => {
        this.#open.delete(wait);
        this.#changed();
      },
    };
  }

  /** What is waited for here. */
  open(): OpenWaits {
    const positions = [...this.#open].flatMap(({ position }) => position ?? []);
    return { writes: this.#open.size - positions.length, positions };
  }

  /** Whether agents should ack a change of (since, revision] at once. */
  wantsAck(since: number, revision: number): boolean {
    return this.#open.size > 0 && wantsAck(this.open(), since, revision);
  }

  /** @param counts which refusals do; undefined: all */
  progress(position: Position, counts?: (rejection: Rejection) => boolean): Progress {
    const statuses = this.#agents.statuses();
    const behind = statuses.filter((status) => !hasApplied(status, position));
    const rejected = statuses.flatMap((status) => refusals(status, position, counts));
    const refusing = new Set(rejected.map(({ host }) => host));
    return {
      applied: statuses.length - behind.length - refusing.size,
      total: statuses.length,
      pending: hosts(behind.filter(({ connected }) => connected)),
      unreachable: hosts(behind.filter(({ connected }) => !connected)),
      rejected,
    };
  }

  /** Ends every wait. */
  stop(): void {
    this.#stopping.abort();
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }

  /**
   * @throws ProblemFault `not_applied` at the timeout, `rejected` as soon as an agent refuses the service, `unavailable`
   * when Atlas stops meanwhile; the write stands in all of them
   */
  #applied({ position, subject, timeoutMs, signal }: WaitTarget): Promise<Progress> {
    const counts = (rejection: Rejection): boolean => concerns(rejection, subject);
    const progress = (): Progress => this.progress(position, counts);
    const begun = progress();
    const pending = new Set([...begun.pending, ...begun.unreachable]);
    if (begun.rejected.length > 0) return Promise.reject(refused(position, begun));
    if (pending.size === 0) return Promise.resolve(begun);
    return new Promise<Progress>((resolve, reject) => {
      const settle = (finish: () => void): void => {
        cancel();
        unsubscribe();
        signal.removeEventListener("abort", onAbort);
        this.#stopping.signal.removeEventListener("abort", onAbort);
        finish();
      };
      const cancel = this.#clock.after(timeoutMs, () =>
        settle(() => reject(notApplied(position, progress(), timeoutMs))),
      );
      const onAbort = (): void => {
        settle(() => reject(new ProblemFault("unavailable", "the wait was broken off; the write stands")));
      };
      const unsubscribe = this.#agents.on((event) => {
        if (event.kind === "holds" || event.kind === "forgotten") return;
        const { kind, host } = event;
        const status = this.#agents.status(host);
        // one host's news is looked at, not every host's: thousands ack the same change
        if (kind === "left" || status === undefined) pending.delete(host);
        else if (!hasApplied(status, position)) pending.add(host);
        else if (refusals(status, position, counts).length > 0) {
          settle(() => reject(refused(position, progress())));
          return;
        } else pending.delete(host);
        if (pending.size === 0) settle(() => resolve(progress()));
      });
      signal.addEventListener("abort", onAbort, { once: true });
      this.#stopping.signal.addEventListener("abort", onAbort, { once: true });
      if (signal.aborted || this.#stopping.signal.aborted) onAbort();
    });
  }
}

/** Whether one of the waits may be for a change of (since, revision]. */
export function wantsAck({ writes, positions }: OpenWaits, since: number, revision: number): boolean {
  return writes > 0 || positions.some((position) => since < position.revision && position.revision <= revision);
}

function hasApplied({ applied }: AgentStatus, { generation, revision }: Position): boolean {
  return applied !== undefined && applied.generation === generation && applied.revision >= revision;
}

function refusals(
  status: AgentStatus,
  position: Position,
  counts: (rejection: Rejection) => boolean = () => true,
): readonly HostRejection[] {
  const { host } = status;
  if (!hasApplied(status, position)) return [];
  return status.rejected.filter(counts).map((rejection): HostRejection => Object.assign({ host }, rejection));
}

/** Whether a refusal is about what is written: its service, or this very instance. */
export function concerns({ service, instance }: Rejection, subject: Subject): boolean {
  return service === subject.service && (instance === undefined || instance === subject.instance);
}

function hosts(statuses: readonly AgentStatus[]): readonly string[] {
  return statuses.map(({ host }) => host).sort();
}

function notApplied(position: Position, progress: Progress, timeoutMs: number): ProblemFault {
  const late = [...progress.pending, ...progress.unreachable];
  return new ProblemFault(
    "not_applied",
    `written, but not applied within ${timeoutMs} ms by ${late.length} of ${progress.total} agents: ${late.slice(0, 5).join(", ")}`,
    { extra: { ...position, ...progress } },
  );
}

function refused(position: Position, progress: Progress): ProblemFault {
  const [first] = progress.rejected;
  return new ProblemFault("rejected", `written, but ${first?.host} refused ${first?.service}: ${first?.error}`, {
    extra: { ...position, ...progress },
  });
}
