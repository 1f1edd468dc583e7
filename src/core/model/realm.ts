import { z } from "zod";

/** An environment: local, test, prod. One Atlas cluster each; an agent refuses a snapshot of another realm. */
export const realmName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,31}$/, "a realm is 1 to 32 of a–z, 0–9 and '-', and begins with a letter");
