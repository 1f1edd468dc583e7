// What of a layout HAProxy takes. A definition it refuses leaves that service in its last good form; everything else goes on.
import type { Rejection } from "../model/agent.ts";
import { Fault } from "../lib/errors.ts";
import { type Backend, checkIntervals, type Layout } from "./layout.ts";
import type { Loaded } from "./loaded.ts";
import type { Wanted } from "./plan.ts";
import { render, type RenderContext, structureOf, type Structure } from "./render.ts";
import type { Verdict } from "./validate.ts";

type Accepted = { readonly wanted: Wanted; readonly rejected: readonly Rejection[] };

export interface Candidates {
  /**
   * @param good what the running HAProxy was loaded with: the last good form of each service
   * @throws Fault `haproxy_failed` when HAProxy refuses even what is good already
   */
  accept(layout: Layout, agents: number, good: Loaded | undefined): Promise<Accepted>;
}

export type CandidatesOptions = {
  readonly context: RenderContext;
  readonly validate: (rendered: ReturnType<typeof render>) => Promise<Verdict>;
};

export function createCandidates({ context, validate }: CandidatesOptions): Candidates {
  /** Service → the definition that was refused and why. Asked again only when the definition changes. */
  const refused = new Map<string, { readonly definition: string; readonly error: string }>();
  let structure: Structure | undefined;
  let valid: string | undefined;

  return {
    async accept(layout, agents, good) {
      for (const [service, { definition }] of refused) {
        const now = layout.backends.get(service)?.definition;
        if (now === undefined || JSON.stringify(now) !== definition) refused.delete(service);
      }
      const attempt = (without: ReadonlySet<string>): Wanted => {
        const allowed = withLastGood(layout, without, agents, good);
        structure = structureOf(allowed, context, structure);
        return { layout: allowed, structure };
      };
      const test = async (wanted: Wanted): Promise<Verdict> =>
        wanted.structure.id === valid || wanted.structure.id === good?.structure.id
          ? { kind: "valid" }
          : validate(render(wanted.layout, context, wanted.structure));
      const refuse = (service: string, error: string): void => {
        const definition = layout.backends.get(service)?.definition;
        refused.set(service, { definition: JSON.stringify(definition), error });
      };

      const told = (): readonly Rejection[] => [...refused].map(([service, { error }]) => ({ service, error }));
      const suspectsIn = (wanted: Wanted): readonly string[] =>
        [...wanted.structure.backends]
          .filter(([service, text]) => !refused.has(service) && good?.structure.backends.get(service) !== text)
          .map(([service]) => service);

      for (;;) {
        const wanted = attempt(new Set(refused.keys()));
        const verdict = await test(wanted);
        if (verdict.kind === "valid") {
          valid = wanted.structure.id;
          return { wanted, rejected: told() };
        }
        if (verdict.kind === "unasked") {
          // they wait in their last good form until HAProxy can be asked; instances change meanwhile
          const waiting = suspectsIn(wanted);
          const { error } = verdict;
          return {
            wanted: attempt(new Set([...refused.keys(), ...waiting])),
            rejected: [...told(), ...waiting.map((service) => ({ service, error }))],
          };
        }
        const fresh =
          verdict.kind === "blamed" ? [...verdict.services].filter(([service]) => !refused.has(service)) : [];
        for (const [service, error] of fresh) refuse(service, error);
        if (fresh.length > 0) continue;
        const error = verdict.kind === "invalid" ? verdict.error : [...verdict.services.values()].join("; ");
        const suspects = suspectsIn(wanted);
        const passes = async (tried: readonly string[]): Promise<boolean> => {
          const others = new Set([...refused.keys(), ...suspects.filter((service) => !tried.includes(service))]);
          return (await test(attempt(others))).kind === "valid";
        };
        const culprits = (await passes([])) ? await search(suspects, passes) : [];
        if (culprits.length === 0) {
          throw new Fault({
            code: "haproxy_failed",
            message: `HAProxy refuses the configuration: ${error}`,
            hint: "What runs goes on. This is an error of smartstack, or of HAProxy's version; please report it.",
          });
        }
        for (const service of culprits) refuse(service, error);
      }
    },
  };
}

/** Those of `suspects` that fail alone, by halving: few tests when few are guilty. */
async function search(
  suspects: readonly string[],
  passes: (tried: readonly string[]) => Promise<boolean>,
): Promise<readonly string[]> {
  if (suspects.length === 0 || (await passes(suspects))) return [];
  if (suspects.length === 1) return suspects;
  const middle = suspects.length >> 1;
  return [...(await search(suspects.slice(0, middle), passes)), ...(await search(suspects.slice(middle), passes))];
}

/** The layout with the services `without` in their last good form, or left out when they never had one. */
function withLastGood(layout: Layout, without: ReadonlySet<string>, agents: number, good: Loaded | undefined): Layout {
  if (without.size === 0) return layout;
  const backends = [...layout.backends].flatMap(([service, backend]): [string, Backend][] => {
    if (!without.has(service)) return [[service, backend]];
    const definition = good?.definitions[service];
    if (definition === undefined) return [];
    return [[service, { ...backend, definition, checks: checkIntervals(definition.healthcheck.intervalMs, agents) }]];
  });
  return { ...layout, backends: new Map(backends) };
}
