/**
 * Tells the smart client of this process where it runs. Through the environment, because that is where every copy of the client
 * looks: `api` of a handler, and the `smartClient` that a service imports. What is set already wins, as a setting of the owner.
 */
export function adoptSurroundings(surroundings: { readonly realm: string; readonly router: string | undefined }): void {
  process.env.SMARTSTACK_REALM ||= surroundings.realm;
  if (surroundings.router !== undefined) process.env.SMARTSTACK_ROUTER ||= surroundings.router;
}
