import { Fault } from "../core/lib/errors.ts";
import { SERVICE_NAME } from "../core/model/names.ts";

/**
 * Names of our own programs, and of host names that mean something else (`Host: NAME.service` reaches a service too); and the
 * one that the registry refuses.
 */
export const RESERVED: ReadonlySet<string> = new Set([
  "atlas",
  "constructor",
  "haproxy",
  "local",
  "localhost",
  "service",
  "sidecar",
  "smartstack",
]);

/**
 * Refuses what cannot be, or should not be, a new service's name, with a name that can.
 * Stricter than the registry in one point: no '-' at the end, since the name also becomes a label of a host name.
 * @throws Fault `usage`
 */
export function checkName(name: string): void {
  if (RESERVED.has(name))
    throw new Fault({
      code: "usage",
      message: `"${name}" is a reserved name`,
      hint: `Choose another, for example ${name}-api.`,
    });
  if (SERVICE_NAME.test(name) && !name.endsWith("-")) return;
  const suggestion = suggestName(name);
  throw new Fault({
    code: "usage",
    message: `"${name}" is not a service name: 1 to 63 of a–z, 0–9 and '-', first a letter, last no '-'`,
    hint: suggestion === undefined ? undefined : `Did you mean ${suggestion}?`,
  });
}

/** The nearest usable name: `My Service` → `my-service`, `Überweisung` → `uberweisung`, `3scale` → `service-3scale`. */
export function suggestName(name: string): string | undefined {
  const kebab = name
    .normalize("NFKD")
    .replaceAll(/\p{Mark}/gu, "")
    // the word boundaries of camelCase
    .replaceAll(/([a-z0-9])([A-Z])/g, "$1-$2")
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-");
  const trim = (text: string): string => text.replaceAll(/^-+|-+$/g, "");
  const words = trim(kebab);
  if (words === "") return undefined;
  const suggestion = trim((/^[a-z]/.test(words) ? words : `service-${words}`).slice(0, 63));
  return RESERVED.has(suggestion) ? `${suggestion}-api` : suggestion;
}
