/**
 * Tells the smart client of this process where it runs. Through the environment, because that is where every copy of the client
 * looks: `api` of a handler, and the `smartClient` that a service imports. The realm is what the service was started with, whatever
 * the variable said: in no other than `local` an address of SMARTSTACK_SERVICE_NAME may lead around the router. A router that
 * is set already stays, as a setting of the owner.
 */
export function adoptSurroundings(surroundings: { readonly realm: string; readonly router: string | undefined }): void {
  process.env.SMARTSTACK_REALM = surroundings.realm;
  if (surroundings.router !== undefined) process.env.SMARTSTACK_ROUTER ||= surroundings.router;
}
