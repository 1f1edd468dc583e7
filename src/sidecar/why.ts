// Why this host's requests for a service go where they go, in words. Pure.
import { type Instance, isUsable } from "../core/model/instance.ts";
import type { Why } from "../core/model/local.ts";
import type { Rejection } from "../core/model/agent.ts";
import type { ServerStatus } from "../core/haproxy/proxy.ts";
import type { Hold } from "./hold.ts";
import type { HostState } from "./host-state.ts";

type Answer = Why["servers"][number];

export type WhyInput = {
  readonly service: string;
  readonly state: HostState;
  readonly servers: readonly ServerStatus[];
  readonly connected: boolean;
  readonly rejected: readonly Rejection[];
  readonly lastReload: Why["lastReload"];
  /** What is wrong on this host beyond the service. */
  readonly notes: readonly string[];
  /** What the last check of an own instance said. */
  readonly said: (id: string) => string | undefined;
  /** What Atlas has against an own instance. */
  readonly problem: (id: string) => string | undefined;
  readonly now: number;
};

export function explain({ service, state, servers, connected, rejected, lastReload, ...input }: WhyInput): Why {
  const { services, instances } = state.desired();
  const running = new Map(servers.map((server) => [`${server.service}/${server.instance}`, server]));
  const answers = instances
    .filter((instance) => instance.service === service)
    .map((instance): Answer => {
      const hold = state.view.holds.get(instance.id);
      const server = running.get(instance.id);
      const { status, progress } = verdictOf(server?.status ?? "ABSENT");
      return {
        instance: instance.instance,
        address: instance.address,
        port: instance.port,
        haproxy: hold === undefined ? status : `HELD ${status}`,
        usable: isUsable(instance) && /^(UP|no check)/i.test(status),
        because: [because(instance, server, hold, input), progress].filter((part) => part !== undefined).join(", "),
      };
    })
    .sort((a, b) => a.instance.localeCompare(b.instance));
  const refusals = rejected
    .filter((rejection) => rejection.service === service)
    .map(({ instance, error }) =>
      instance === undefined ? `HAProxy refuses its definition, its last good form stays: ${error}` : error,
    );
  const problems = instances.flatMap(({ id, instance, service: owner }) => {
    const problem = owner === service ? input.problem(id) : undefined;
    return problem === undefined ? [] : [`${instance}: ${problem}`];
  });
  return {
    service,
    host: state.host,
    known: Object.hasOwn(services, service),
    usable: answers.filter(({ usable }) => usable).length,
    total: answers.length,
    servers: answers,
    revision: state.position.revision,
    generation: state.position.generation,
    atlas: { connected },
    lastReload,
    notes: [...refusals, ...problems, ...input.notes],
  };
}

/** HAProxy says `UP 1/3` or `DOWN 1/2` while checks go against a verdict, and have not yet changed it. */
function verdictOf(words: string): { readonly status: string; readonly progress: string | undefined } {
  const [, status, passed, needed] = /^(UP|DOWN) (\d+)\/(\d+)$/.exec(words) ?? [];
  if (status === undefined) return { status: words, progress: undefined };
  return {
    status,
    progress:
      status === "UP"
        ? `${passed} more failed ${passed === "1" ? "check" : "checks"} and it is down`
        : `${passed} of ${needed} passes towards UP`,
  };
}

type Told = Pick<WhyInput, "said" | "now">;

function because(
  instance: Instance,
  server: ServerStatus | undefined,
  hold: Hold | undefined,
  { said, now }: Told,
): string {
  if (hold !== undefined) return `${doubtOf(hold)}, ${probeOf(hold)}, ${ageOf(now - hold.since)}`;
  if (!instance.enabled) return "disabled by an operator";
  if (instance.draining) return "draining: the instance is leaving";
  const check = said(instance.id) ?? server?.check ?? "";
  if (instance.healthy === false) return `unhealthy, says its host${check === "" ? "" : `: ${check}`}`;
  if (check !== "") return check;
  if (server === undefined) return "HAProxy does not have it yet";
  return instance.healthy === true ? "healthy, says its host" : "not checked yet";
}

function doubtOf({ doubt }: Hold): string {
  return doubt === "expired" ? "expired in Atlas" : "vanished from Atlas without a reason";
}

function probeOf({ failures, passedAt }: Hold): string {
  if (failures > 0) return "our probe failed once";
  return passedAt === undefined ? "our probe is due" : "our probe passes";
}

function ageOf(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1_000));
  return seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
}
