// What Atlas says to a new service: whether its name is free, and its port in the realm.
import { z } from "zod";
import { type AtlasClient, AtlasProblem } from "../core/api/atlas-client.ts";
import { readAnswer } from "../core/api/exchange.ts";
import { errorCode, Fault } from "../core/lib/errors.ts";
import { port } from "../core/model/names.ts";

/** For each question, in ms. A generator must not hang on a registry it can do without. */
const PATIENCE = 1_000;

const reservationSchema = z.object({ service: z.string(), port });
export type Reservation = z.output<typeof reservationSchema>;

/** What Atlas knows, or why it could not say; `away` when it does not answer at all. */
export type Answer<T> =
  | { readonly kind: "known"; readonly value: T }
  | { readonly kind: "unknown"; readonly away: boolean; readonly why: string };

/**
 * Asks Atlas one thing. An Atlas that is away, or refuses (no token, degraded), is no reason to generate nothing: then the
 * answer is `unknown`, with the reason.
 */
async function ask<T>(question: () => Promise<T>): Promise<Answer<T>> {
  try {
    return { kind: "known", value: await question() };
  } catch (error) {
    const away = error instanceof DOMException && error.name === "TimeoutError";
    if (away) return { kind: "unknown", away, why: `Atlas did not answer within ${PATIENCE} ms` };
    if (error instanceof AtlasProblem || (error instanceof Fault && error.code === "bad_answer"))
      return { kind: "unknown", away: false, why: error.message };
    if (error instanceof Fault && error.code === "unreachable")
      return { kind: "unknown", away: true, why: error.message };
    throw error;
  }
}

/** Whether a service of that name is registered. */
export function isRegistered(atlas: AtlasClient, service: string): Promise<Answer<boolean>> {
  return ask(async () => {
    try {
      await atlas.request(`/v1/services/${service}`, { schema: z.unknown(), timeoutMs: PATIENCE });
      return true;
    } catch (error) {
      if (errorCode(error) === "not_found") return false;
      throw error;
    }
  });
}

/** Every reservation of the realm. */
export function reservations(atlas: AtlasClient): Promise<Answer<readonly Reservation[]>> {
  return ask(() => atlas.request("/v1/ports", { schema: z.array(reservationSchema), timeoutMs: PATIENCE }));
}

/** Reserves the service's port; `created` is false when the service had it already. */
export function reserve(
  atlas: AtlasClient,
  service: string,
): Promise<Answer<{ readonly port: number; readonly created: boolean }>> {
  return ask(async () => {
    const response = await atlas.fetch("/v1/ports", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ service }),
      signal: AbortSignal.timeout(PATIENCE),
    });
    const answer = await readAnswer(
      response,
      reservationSchema,
      "POST /v1/ports",
      (...refusal) => new AtlasProblem(...refusal),
    );
    return { port: answer.port, created: response.status === 201 };
  });
}

/** Gives the port back. */
export function release(atlas: AtlasClient, service: string): Promise<Answer<unknown>> {
  return ask(() =>
    atlas.request(`/v1/ports/${service}`, { method: "DELETE", schema: z.unknown(), timeoutMs: PATIENCE }),
  );
}
