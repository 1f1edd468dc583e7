// What Atlas says to a new service: whether its name is free, and its port in the realm.
import { z } from "zod";
import { type AtlasClient, AtlasProblem } from "../core/api/atlas-client.ts";
import { readAnswer } from "../core/api/exchange.ts";
import { errorCode, Fault } from "../core/lib/errors.ts";
import { portSchema } from "../core/model/answers.ts";

/** How long a question may take, in ms: one that finds out whether Atlas is there, and one to an Atlas that is. */
const PATIENCE = { first: 2_000, later: 10_000 };

export type Reservation = z.output<typeof portSchema>;

/** What Atlas knows, or why it could not say: nobody is there, it refused (no token, degraded), it took too long. */
export type Answer<T> =
  | { readonly kind: "known"; readonly value: T }
  | { readonly kind: "unknown"; readonly reason: "away" | "refused" | "silent"; readonly why: string };

async function ask<T>(patienceMs: number, question: (signal: AbortSignal) => Promise<T>): Promise<Answer<T>> {
  const signal = AbortSignal.timeout(patienceMs);
  try {
    return { kind: "known", value: await question(signal) };
  } catch (error) {
    if (signal.aborted)
      return { kind: "unknown", reason: "silent", why: `Atlas did not answer within ${patienceMs / 1_000} s` };
    if (error instanceof AtlasProblem || (error instanceof Fault && error.code === "bad_answer"))
      return { kind: "unknown", reason: "refused", why: error.message };
    if (error instanceof Fault && error.code === "unreachable")
      return { kind: "unknown", reason: "away", why: error.message };
    throw error;
  }
}

/** Whether a service of that name is registered. */
export function isRegistered(atlas: AtlasClient, service: string): Promise<Answer<boolean>> {
  return ask(PATIENCE.first, async (signal) => {
    try {
      await atlas.request(`/v1/services/${service}`, { schema: z.unknown(), signal });
      return true;
    } catch (error) {
      if (errorCode(error) === "not_found") return false;
      throw error;
    }
  });
}

/** Every reservation of the realm. */
export function reservations(atlas: AtlasClient): Promise<Answer<readonly Reservation[]>> {
  return ask(PATIENCE.later, (signal) => atlas.request("/v1/ports", { schema: z.array(portSchema), signal }));
}

/** Reserves the service's port; `created` is false when the service had it already. */
export function reserve(
  atlas: AtlasClient,
  service: string,
): Promise<Answer<{ readonly port: number; readonly created: boolean }>> {
  return ask(PATIENCE.later, async (signal) => {
    const response = await atlas.fetch("/v1/ports", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ service }),
      signal,
    });
    const answer = await readAnswer(
      response,
      portSchema,
      "POST /v1/ports",
      (...refusal) => new AtlasProblem(...refusal),
    );
    return { port: answer.port, created: response.status === 201 };
  });
}

/** Gives the port back. */
export function release(atlas: AtlasClient, service: string): Promise<Answer<unknown>> {
  return ask(PATIENCE.later, (signal) =>
    atlas.request(`/v1/ports/${service}`, { method: "DELETE", schema: z.unknown(), signal }),
  );
}
