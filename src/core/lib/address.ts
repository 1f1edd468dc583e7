/** Where something listens. Port 0 asks the system for a free one. */
export type Address = { readonly host: string; readonly port: number };

/** A host as it stands in a URL: brackets around an IPv6 address. */
export function formatHost(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}

/** `HOST:PORT`, `[::1]:PORT`. */
export function formatAddress({ host, port }: Address): string {
  return `${formatHost(host)}:${port}`;
}
