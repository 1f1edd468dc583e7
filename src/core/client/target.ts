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

export type Query = URLSearchParams | Readonly<Record<string, QueryValue | readonly QueryValue[]>>;
type QueryValue = string | number | boolean | null | undefined;

// all that is right about a service's URL at once; what does not match is looked at more closely, to say why
const SERVICE_URL =
  // oxlint-disable-next-line no-control-regex
  /^service:\/\/([a-z][a-z0-9-]{0,62})((?:\/[^?#\u0000-\u001f\u007f]*)?)((?:\?[^#\u0000-\u001f\u007f]*)?)(?:#.*)?$/;
// a URL parser drops line breaks without a word; here they mean that someone's input was pasted into a URL
// oxlint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u001f\u007f]/;
const SCHEME = /^([a-z][a-z0-9+.-]*):/i;

/**
 * @param base what a relative `input` is relative to: `service://identity`
 * @param router base URL of the host's HAProxy
 * @param addressOf the address of a service in the realm `local`, when one was given
 * @throws SmartClientError `invalid_request`
 */
export function targetOf(
  input: string,
  base: string | undefined,
  query: Query | undefined,
  router: string,
  addressOf: (service: string) => string | undefined,
): Target {
  const text = base === undefined || SCHEME.test(input) ? input : join(base, input);
  const match = SERVICE_URL.exec(text);
  if (match === null) return webTarget(text, query);
  const [, service = "", path, search] = match;
  const address = addressOf(service);
  const url = `${trimSlash(address ?? router)}${path === "" ? "/" : path}${search}`;
  return { service, via: address === undefined ? "router" : "address", url: withQuery(url, query) };
}

const REMEMBERED = 1_000;

/** `aim`, remembering where the last URLs lead: most programs call few, and reading one again can be measured. */
export function remember(aim: (input: string) => Target): (input: string) => Target {
  const targets = new Map<string, Target>();
  return (input) => {
    const known = targets.get(input);
    if (known !== undefined) return known;
    const target = aim(input);
    if (targets.size >= REMEMBERED) targets.clear();
    targets.set(input, target);
    return target;
  };
}

function webTarget(text: string, query: Query | undefined): Target {
  if (CONTROL.test(text)) throw invalidRequest("the URL has a control character in it; encode it as %XX");
  const scheme = SCHEME.exec(text)?.[1]?.toLowerCase();
  if (scheme === "service") {
    const name = /^service:(?:\/\/)?([^/?#]*)/i.exec(text)?.[1] ?? "";
    throw invalidRequest(
      SERVICE_NAME.test(name)
        ? `"${text}" is not a URL of a service; write service://${name}/path`
        : `"${name}" is not a service name: 1 to 63 of a–z, 0–9 and '-', beginning with a letter, without port or user`,
      name,
    );
  }
  if (scheme === undefined)
    throw invalidRequest(`"${text}" has no scheme; write service://NAME/path or http://HOST/path`);
  if (scheme !== "http" && scheme !== "https")
    throw invalidRequest(`the scheme ${scheme}: is not known; use service://, http:// or https://`);
  if (!URL.canParse(text)) throw invalidRequest(`"${text}" is not a URL`);
  const url = new URL(text);
  if (url.username !== "" || url.password !== "")
    throw invalidRequest("a URL must not hold a user name or password; use a header", url.host);
  url.hash = "";
  return { service: url.host, via: "direct", url: withQuery(url.href, query) };
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
