// One exchange of JSON over HTTP with a program of ours: what the clients of Atlas and of the sidecar share.
import { z } from "zod";
import { describeError, errorCode, Fault } from "../lib/errors.ts";
import type { FieldError } from "../lib/problem.ts";

/** A program of ours answered with a problem. `code` is the problem's own (`not_found`, `conflict`, `not_applied` …). */
export class ApiProblem extends Fault {
  readonly status: number;
  readonly errors: readonly FieldError[];
  /** The whole problem document, for members such as `pending`. */
  readonly body: Readonly<Record<string, unknown>>;

  /**
   * @param peer who refused, as it stands in the message: `Atlas`, `the sidecar`
   * @param hint what to do about it, where no field is named
   */
  constructor(peer: string, status: number, body: Readonly<Record<string, unknown>>, request: string, hint?: string) {
    const parsed = problemSchema.safeParse(body);
    const { code, detail, errors } = parsed.success
      ? parsed.data
      : { code: "internal", detail: `status ${status}`, errors: [] };
    super({
      code,
      message: `${peer} refused ${request}: ${detail}`,
      hint: errors.map(({ path, message }) => `${path}: ${message}`).join("\n") || hint,
    });
    this.status = status;
    this.errors = errors;
    this.body = body;
  }
}

const problemSchema = z.object({
  code: z.string(),
  detail: z.string(),
  errors: z.array(z.object({ path: z.string(), message: z.string() })).default([]),
});

/** The problem document of a refusal, or an empty one when the answer is none (a proxy's page, say). */
export async function readProblem(response: Response): Promise<Readonly<Record<string, unknown>>> {
  const answer = parseJson(await response.text());
  return isRecord(answer) ? answer : {};
}

/**
 * The answer as the schema says.
 * @throws what `problem` makes of a status ≥ 400; Fault `bad_answer` when the answer is something else
 */
export async function readAnswer<T>(
  response: Response,
  schema: z.ZodType<T>,
  request: string,
  problem: (status: number, body: Readonly<Record<string, unknown>>, request: string) => ApiProblem,
): Promise<T> {
  if (!response.ok) throw problem(response.status, await readProblem(response), request);
  const parsed = schema.safeParse(parseJson(await response.text()));
  if (parsed.success) return parsed.data;
  throw new Fault({
    code: "bad_answer",
    message: `${request} answered something unexpected: ${z.prettifyError(parsed.error)}`,
    hint: "Is that address the right program, and not older than this one?",
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    // not JSON: the caller reports it by status or schema
    return error instanceof SyntaxError ? text : undefined;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const UNTRUSTED = "its certificate is from no authority that is known here; name the right one with --tls-ca";
/** What OpenSSL calls it, and what a person does about it. */
const TLS_FAILURES: Readonly<Record<string, string>> = {
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNTRUSTED,
  UNABLE_TO_GET_ISSUER_CERT: UNTRUSTED,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNTRUSTED,
  SELF_SIGNED_CERT_IN_CHAIN: UNTRUSTED,
  DEPTH_ZERO_SELF_SIGNED_CERT: UNTRUSTED,
  CERT_SIGNATURE_FAILURE: UNTRUSTED,
  CERT_HAS_EXPIRED: "its certificate has expired; renew it there, unless this machine's clock is wrong",
  CERT_NOT_YET_VALID: "its certificate is not valid yet; is this machine's clock right?",
  ERR_TLS_CERT_ALTNAME_INVALID: "its certificate is for other names than this; ask it by one that stands in it",
  EPROTO: "it speaks no TLS there; is it http:// rather than https://?",
};

/** What is wrong with TLS, or undefined when a failure is about something else. */
export function describeTlsFailure(error: unknown): string | undefined {
  const code = errorCode(error) ?? "";
  return Object.hasOwn(TLS_FAILURES, code) ? TLS_FAILURES[code] : undefined;
}

/** Why nobody answered, in words where the runtime's own are long. */
export function describeFailure(error: unknown): string {
  const tls = describeTlsFailure(error);
  if (tls !== undefined) return tls;
  // two names for one thing: Bun renamed it
  if (["ECONNREFUSED", "ConnectionRefused"].includes(errorCode(error) ?? "")) return "nobody listens there";
  if (["ECONNRESET", "ConnectionClosed"].includes(errorCode(error) ?? "")) return "the connection broke";
  if (error instanceof DOMException && error.name === "TimeoutError") return "no answer in time";
  return describeError(error);
}
