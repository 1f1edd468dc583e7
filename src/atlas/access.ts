// Who may do what. A route names what it needs; which roles that admits stands here and nowhere else. What depends on the data,
// that an agent keeps to its own host, is checked by the functions at the end.
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { ProblemFault } from "../core/lib/http.ts";
import { parseInstanceName, sameHost } from "../core/model/names.ts";
import type { InstanceRecord } from "../core/registry/live-store.ts";
import type { Actor } from "./audit-trail.ts";
import { hashToken, type Role, type Token } from "./tokens.ts";

/** What a route can need, and the roles that have it. docs/security.md has the same table; a test holds them together. */
export const NEEDS = {
  /** No token. */
  nothing: [],
  read: ["read", "agent", "deploy", "admin"],
  /** Speaking as the agent of a host: its lease, its acks. */
  lease: ["agent", "admin"],
  /** Writing instances, or publishing a definition: an agent only its own. */
  instances: ["agent", "deploy", "admin"],
  deploy: ["deploy", "admin"],
  admin: ["admin"],
} as const satisfies Readonly<Record<string, readonly Role[]>>;

/** `peer`: another replica, with the token of --peer-token-file. No token of people or agents is good for that. */
export type Need = keyof typeof NEEDS | "peer";

/** Who sent a request. */
export type Caller =
  /** Nobody is asked for a token here. */
  | { readonly kind: "anyone" }
  /** Without a token that is known, on a route that needs none. */
  | { readonly kind: "stranger" }
  | { readonly kind: "peer" }
  | { readonly kind: "token"; readonly token: Token };

export const ANYONE: Caller = { kind: "anyone" };
const STRANGER: Caller = { kind: "stranger" };
const PEER: Caller = { kind: "peer" };

/** What Atlas was given to tell callers apart. Looked at anew for every request: it changes with SIGHUP. */
type Known = {
  /** Undefined: nobody needs a token. */
  readonly tokens: readonly Token[] | undefined;
  /** Undefined: no peer has one. */
  readonly peerTokens: readonly string[] | undefined;
};

export class Access {
  readonly #secrets: Known;
  /**
   * Tokens are found by a keyed hash of their hash: how long that takes says nothing about what is in the file, and it is the
   * same for one token and for three thousand.
   */
  readonly #key = randomBytes(32);
  #known: { readonly from: readonly Token[]; readonly byKey: ReadonlyMap<string, Token> } | undefined;

  constructor(secrets: Known) {
    this.#secrets = secrets;
  }

  /**
   * @param authorization the header of that name
   * @throws ProblemFault `unauthorized` without a token or with one that nobody knows; `forbidden` when its role has not what is
   * needed
   */
  admit(need: Need, authorization: string | null): Caller {
    const { tokens, peerTokens } = this.#secrets;
    const presented = bearer(authorization);
    if (need === "peer") {
      if (peerTokens === undefined && tokens === undefined) return ANYONE;
      return this.#admitPeer(presented, peerTokens);
    }
    if (tokens === undefined) return ANYONE;
    const token = presented === undefined ? undefined : this.#byHash(hashToken(presented));
    if (need === "nothing") return token === undefined ? STRANGER : { kind: "token", token };
    if (presented === undefined) throw unauthorized("this Atlas asks for a token, and none was sent", false);
    if (token === undefined) throw unauthorized("the token is not known to this Atlas", true);
    const caller: Caller = { kind: "token", token };
    requireNeed(caller, need);
    return caller;
  }

  /** Whether what a caller was admitted for still holds: his token is there, with the same role and host. */
  holds(caller: Caller): boolean {
    if (caller.kind !== "token") return true;
    const { hash, role, host } = caller.token;
    const token = this.#byHash(hash);
    return token?.role === role && token.host === host;
  }

  #admitPeer(presented: string | undefined, peerTokens: readonly string[] | undefined): Caller {
    if (peerTokens === undefined) {
      throw new ProblemFault("forbidden", "this Atlas has no --peer-token-file, so it takes no other replica's word");
    }
    if (presented === undefined) throw unauthorized("only another replica may ask that, with the peers' token", false);
    // every one is compared, whichever fits
    const fits = peerTokens.map((token) => equal(digest(presented), digest(token)));
    if (!fits.includes(true)) {
      throw unauthorized("that is not the peers' token of this Atlas; all replicas share one", true);
    }
    return PEER;
  }

  /** Undefined: no such token, or nobody needs one. */
  #byHash(hash: string): Token | undefined {
    const { tokens = [] } = this.#secrets;
    if (this.#known?.from !== tokens) {
      this.#known = { from: tokens, byKey: new Map(tokens.map((token) => [this.#keyOf(token.hash), token])) };
    }
    const found = this.#known.byKey.get(this.#keyOf(hash));
    return found !== undefined && equal(Buffer.from(found.hash, "hex"), Buffer.from(hash, "hex")) ? found : undefined;
  }

  #keyOf(hash: string): string {
    return createHmac("sha256", this.#key).update(hash).digest("base64");
  }
}

/** The token of `Authorization: Bearer TOKEN`. */
function bearer(authorization: string | null): string | undefined {
  return /^Bearer +([\x21-\x7e]+) *$/i.exec(authorization ?? "")?.[1];
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/** In constant time; both have the same length. */
function equal(a: Buffer, b: Buffer): boolean {
  return timingSafeEqual(a, b);
}

/** RFC 6750, section 3: no error code when the request carried no token at all. */
function unauthorized(message: string, sent: boolean): ProblemFault {
  const challenge = `Bearer realm="smartstack"${sent ? ', error="invalid_token"' : ""}`;
  return new ProblemFault("unauthorized", message, { headers: { "www-authenticate": challenge } });
}

function forbidden({ name, role, host }: Token, message: string): ProblemFault {
  const where = host === undefined ? "" : ` of ${host}`;
  return new ProblemFault("forbidden", `${message}; the token ${name} has the role ${role}${where}`);
}

function oneOf(roles: readonly Role[]): string {
  const last = roles.at(-1) ?? "";
  return roles.length < 2 ? `the role ${last}` : `the role ${roles.slice(0, -1).join(", ")} or ${last}`;
}

/** The name that the audit trail has of a caller, or undefined when he has none. */
export function nameOf(caller: Caller): string | undefined {
  switch (caller.kind) {
    case "token":
      return caller.token.name;
    case "peer":
      return "peer";
    case "anyone":
    case "stranger":
      return undefined;
  }
}

/** Whether a caller may be told more than whether Atlas is well. */
export function mayRead(caller: Caller): boolean {
  return caller.kind !== "stranger";
}

/** An agent's token keeps to one host; undefined: the caller's word counts for every host. */
export function hostOf(caller: Caller): string | undefined {
  return caller.kind === "token" ? caller.token.host : undefined;
}

/** @throws ProblemFault `forbidden` when the caller's role has not what is needed */
export function requireNeed(caller: Caller, need: keyof typeof NEEDS): void {
  if (caller.kind !== "token") return;
  const admitted: readonly Role[] = NEEDS[need];
  if (!admitted.includes(caller.token.role)) throw forbidden(caller.token, `that needs ${oneOf(admitted)}`);
}

/** @throws ProblemFault `forbidden` when an agent does what only an operator may, such as saying `enabled` */
export function refuseAgent(caller: Caller, what: string): void {
  if (caller.kind !== "token" || caller.token.role !== "agent") return;
  throw forbidden(caller.token, `${what} needs ${oneOf(NEEDS.deploy)}`);
}

/**
 * @param host for whose agent the caller speaks; undefined: for none, as operators do
 * @throws ProblemFault `forbidden` when he holds the token of another host's agent
 */
export function requireOwnHost(caller: Caller, host: string | undefined): void {
  const own = hostOf(caller);
  if (own === undefined || caller.kind !== "token") return;
  if (host === undefined) throw forbidden(caller.token, `an agent says for whom it speaks: agent=${own} is missing`);
  if (!sameHost(own, host)) throw forbidden(caller.token, `only the agent of ${host} may say that`);
}

/**
 * Which instances an agent may write: those that are its own, and those that bear its host's name, whoever put them.
 * @throws ProblemFault `forbidden`
 */
export function requireOwnInstance(
  { who, confinedTo }: Actor,
  instance: string,
  current: InstanceRecord | undefined,
): void {
  if (confinedTo === undefined) return;
  const owner = current?.registration?.agent ?? null;
  const named = parseInstanceName(instance)?.host ?? instance;
  if (sameHost(confinedTo, named) || (owner !== null && sameHost(confinedTo, owner))) return;
  throw new ProblemFault(
    "forbidden",
    `${instance} is not an instance of ${confinedTo}, and the token ${who} is that host's agent's`,
  );
}
