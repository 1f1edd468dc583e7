// From what the caller wrote to where the request goes.
import { SERVICE_NAME } from "../model/names.ts";
import { invalidRequest } from "./error.ts";

/** Where a request goes. `service` is the key of its policies: the service's name, or the origin's host. */
export type Target = {
  readonly service: string;
  /** `router`: the host's HAProxy, which knows the instances; `address`: a service's own address; `direct`: any URL. */
  readonly via: "router" | "address" | "direct";
  readonly url: string;
};

export type Surroundings = {
  /** Base URL of the host's HAProxy. */
  readonly router: string;
  /** The address of a service in the realm `local`, when one was given. */
  readonly address: (service: string) => string | undefined;
};

export type Query = URLSearchParams | Readonly<Record<string, QueryValue | readonly QueryValue[]>>;
type QueryValue = string | number | boolean | null | undefined;

const SERVICE_URL = /^service:\/\/([^/?#]*)([^?#]*)(\?[^#]*)?/i;
const WEB_URL = /^https?:\/\//i;
// a URL parser drops line breaks without a word; here they mean that someone's input was pasted into a URL
// oxlint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u001f\u007f]/;

/**
 * @param base what a relative `input` is relative to: `service://identity`
 * @throws SmartClientError `invalid_request`
 */
export function targetOf(input: string, base: string | undefined, query: Query | undefined, to: Surroundings): Target {
  if (CONTROL.test(input)) throw invalidRequest("the URL has a control character in it; encode it as %XX");
  const text = base === undefined || /^[a-z][a-z0-9+.-]*:/i.test(input) ? input : join(base, input);
  const match = SERVICE_URL.exec(text);
  if (match !== null) return serviceTarget(match, query, to);
  if (WEB_URL.test(text)) {
    if (!URL.canParse(text)) throw invalidRequest(`"${text}" is not a URL`);
    const url = new URL(text);
    if (url.username !== "" || url.password !== "")
      throw invalidRequest("a URL must not hold a user name or password; use a header", url.host);
    return { service: url.host, via: "direct", url: withQuery(text.replace(/#.*$/, ""), query) };
  }
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(text)?.[1];
  throw invalidRequest(
    scheme === undefined
      ? `"${text}" has no scheme; write service://NAME/path or http://HOST/path`
      : `the scheme ${scheme}: is not known; use service://, http:// or https://`,
  );
}

function serviceTarget(match: RegExpExecArray, query: Query | undefined, to: Surroundings): Target {
  const name = match[1] ?? "";
  if (!SERVICE_NAME.test(name)) {
    throw invalidRequest(
      `"${name}" is not a service name: 1 to 63 of a–z, 0–9 and '-', beginning with a letter, no port or user`,
      name,
    );
  }
  const address = to.address(name);
  const path = match[2] === undefined || match[2] === "" ? "/" : match[2];
  const url = `${trimSlash(address ?? to.router)}${path}${match[3] ?? ""}`;
  return { service: name, via: address === undefined ? "router" : "address", url: withQuery(url, query) };
}

function join(base: string, path: string): string {
  return path === "" || path.startsWith("/") || path.startsWith("?") ? `${base}${path}` : `${base}/${path}`;
}

function trimSlash(url: string): string {
  return url.endsWith("/") ? url.slice(0, -1) : url;
}

function withQuery(url: string, query: Query | undefined): string {
  if (query === undefined) return url;
  const text = (query instanceof URLSearchParams ? query : searchParams(query)).toString();
  if (text === "") return url;
  return `${url}${url.includes("?") ? "&" : "?"}${text}`;
}

function searchParams(query: Exclude<Query, URLSearchParams>): URLSearchParams {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value as QueryValue]) {
      if (one !== undefined && one !== null) params.append(name, String(one));
    }
  }
  return params;
}

/**
 * Where a redirect leads, when that is within the same service: undefined when it leads out of it. A service behind the
 * router may name itself by a path, by `service://`, by `NAME.service`, or by the address it was called at.
 */
export function redirectTarget(from: Target, location: string): Target | undefined {
  const prefix = `service://${from.service}`;
  if (from.via !== "direct" && (location === prefix || location.startsWith(`${prefix}/`)))
    return { ...from, url: new URL(location.slice(prefix.length) || "/", from.url).href };
  if (!URL.canParse(location, from.url)) return undefined;
  const to = new URL(location, from.url);
  const base = new URL(from.url);
  const named = from.via !== "direct" && to.hostname === `${from.service}.service`;
  if (to.origin !== base.origin && !named) return undefined;
  return { ...from, url: `${base.origin}${to.pathname}${to.search}` };
}
