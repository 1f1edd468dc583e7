// The modules that a service may import although nothing is installed. They are this program's own, so a class that the
// service sees (`Hono`, a zod schema) is the class that the framework sees.
import * as hono from "hono";
import * as zod from "zod";
import * as client from "../client/index.ts";
import * as service from "./index.ts";

const MODULES: Readonly<Record<string, Record<string, unknown>>> = {
  smartstack: service,
  "smartstack/client": client,
  "smartstack/service": service,
  hono,
  zod,
};

/** From here on every file that is imported finds them, wherever it lies. Call it before the first import of a service. */
export function provideVirtualModules(): void {
  Bun.plugin({
    name: "smartstack",
    setup(build) {
      for (const [name, exports] of Object.entries(MODULES)) build.module(name, () => ({ exports, loader: "object" }));
    },
  });
}
