import { invalidRequest } from "./error.ts";

/** Headers as a caller may write them. A value of undefined takes an inherited header away. */
export type HeaderInput = Headers | Readonly<Record<string, string | undefined>> | Iterable<readonly [string, string]>;

/** Checked headers, names in lower case. */
export type HeaderMap = Record<string, string>;

const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
// what may stand in a field value: RFC 9110, section 5.5, and Latin-1, which is what fetch can send
// oxlint-disable-next-line no-control-regex
const BAD_VALUE = /[\u0000-\u0008\u000a-\u001f\u007f]|[^\u0000-\u00ff]/;

/**
 * `base` with `input` over it. Line breaks are refused, never sent: a value from outside must not become a header.
 * @throws SmartClientError `invalid_request`
 */
export function mergeHeaders(base: HeaderMap, input: HeaderInput | undefined): HeaderMap {
  const merged = { ...base };
  if (input === undefined) return merged;
  const entries: Iterable<readonly [string, string | undefined]> = isIterable(input) ? input : Object.entries(input);
  for (const [name, value] of entries) {
    if (!NAME.test(name)) throw invalidRequest(`${JSON.stringify(name)} is not a header name`);
    const key = name.toLowerCase();
    if (value === undefined) {
      delete merged[key];
      continue;
    }
    if (typeof value !== "string") throw invalidRequest(`the header ${key} must be text, not ${typeof value}`);
    if (BAD_VALUE.test(value))
      throw invalidRequest(`the header ${key} has a character that HTTP does not allow in a header`);
    merged[key] = value.trim();
  }
  return merged;
}

function isIterable(input: HeaderInput): input is Headers | Iterable<readonly [string, string]> {
  return Symbol.iterator in input;
}
